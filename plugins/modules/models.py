#!/usr/bin/python
# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of this name; it runs node programs ``models`` and ``model_copy``."""

from __future__ import annotations

DOCUMENTATION = r"""
module: models
short_description: Have every node hold the models that it is to hold
version_added: 0.1.0
description:
  - Role C(bzzz.cluster.models) calls it once for each stage, after role C(declaration). Where nothing is lacking, the
    first stage is one question to each node, and the others are not reached.
  - Pulls are Ollama's own. They are followed in the background, and tell how far they are at every tenth, and every eight seconds at most.
options:
  stage:
    description:
      - V(held) asks what the node's Ollama holds; V(assign), once a run, decides which node is to hold what. Of models that no node holds, and of
        which nothing is declared, it asks the registry what their memory is reckoned from; V(describe) does that alone, for the plan. V(look), for
        the plan as well, asks Ollamas that hold wanted models what these are made of, and which are loaded.
      - V(pull) has Ollama pull what no node holds yet; in check mode it says what all stages would do. What C(models_prune) allows is removed by the
        stage that has judged what comes instead, and by V(stop) where others were to copy it.
      - V(serve) offers what others lack to them, V(copy) takes it from there or else pulls it, and V(stop) ends the offer.
    type: str
    choices: [held, look, describe, assign, pull, serve, copy, stop]
    required: true
  everywhere:
    description: With stage V(held), whether the further servers of C(ollama_endpoints) are asked, too.
    type: bool
    default: false
  discover:
    description:
      - With stage V(held), whether the first node looks for other Ollamas on the cluster's subnets. It tries a connection to port 11434 of each
        address but those of nodes.
    type: bool
    default: false
  subnets:
    description: Networks in which to look, instead of the cluster's own; of up to 1024 addresses each.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Can run in check mode.
    support: full
  diff_mode:
    description: Shows what differs in diff mode.
    support: full
  idempotent:
    description: A model that is there is left alone.
    support: full
author:
  - BZZZ cluster setup maintainers (@bzzz)
"""

EXAMPLES = r"""
- name: What the Ollamas hold
  bzzz.cluster.models:
    stage: held

- name: Which node is to hold what
  bzzz.cluster.models:
    stage: assign
  run_once: true
"""

RETURN = r"""
changes:
  description: Models that were pulled, copied or removed, or would be.
  returned: always
  type: list
  elements: dict
  sample: [{"kind": "model", "name": "qwen3:8b", "what": "copied from gpu1, 4.9 GiB"}]
checks:
  description: Of stage V(assign), one for each model that has no place. As M(bzzz.cluster.probe) returns them.
  returned: with stage V(assign)
  type: list
  elements: dict
  sample: []
"""

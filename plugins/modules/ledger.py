#!/usr/bin/python
# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ledger
short_description: Ask the AI gateway's ledger
version_added: 0.1.0
description:
  - Asks the ledger of the gateway that is installed on the node, and writes what it tells into a file of the control node.
  - A node without a gateway is left alone. Needs root there, and asks as the gateway's own user.
options:
  question:
    description:
      - C(kind) (V(report), V(calls), V(focus)), C(since) and C(until) (days, in the gateway's time zone), C(by) (some of V(user), V(project), V(model),
        V(task)), C(per) (V(hour), V(day), V(month), V(whole)), C(account) (the billing account's name in FOCUS records).
    type: dict
    required: true
  answer:
    description: File of the control node, which only its owner may read.
    type: path
    required: true
attributes:
  check_mode:
    description: Can run in check mode.
    support: full
  diff_mode:
    description: Shows what differs in diff mode.
    support: none
  idempotent:
    description: Looks only, and never changes anything on the node.
    support: full
author:
  - BZZZ cluster setup maintainers (@bzzz)
"""

EXAMPLES = r"""
- name: What this month has cost
  bzzz.cluster.ledger:
    question: {kind: report, by: [model, task]}
    answer: /run/user/1000/answer.json
"""

RETURN = r"""
found:
  description: Whether there is a gateway on the node.
  returned: success
  type: bool
  sample: true
"""

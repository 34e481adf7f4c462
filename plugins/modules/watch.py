#!/usr/bin/python
# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: watch
short_description: Hand on what happens in the cluster, as it happens
version_added: 0.1.0
description:
  - Asks the node service of the coordinator what happens, again and again, and appends it to a file of the control node, a JSON object a line.
  - Goes on for as long as that file is there. Of several coordinators one is listened to; another takes its place when it fails.
  - Needs root on the coordinator, which keeps the cluster's own token.
options:
  feed:
    description: File of the control node. It has to be there at the beginning, and ends this when it is removed.
    type: path
    required: true
  seconds:
    description: How long one question waits for something to happen.
    type: float
    default: 20
attributes:
  check_mode:
    description: Can run in check mode.
    support: full
  diff_mode:
    description: Shows what differs in diff mode.
    support: none
  idempotent:
    description: Looks only, and never changes anything.
    support: full
author:
  - BZZZ cluster setup maintainers (@bzzz)
"""

EXAMPLES = r"""
- name: What happens
  bzzz.cluster.watch:
    feed: /run/user/1000/feed
"""

RETURN = r"""
lines:
  description: How many lines were handed on.
  returned: success
  type: int
  sample: 12
"""

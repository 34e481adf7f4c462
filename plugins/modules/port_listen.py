#!/usr/bin/python
# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of this name; it runs node program ``listen``."""

from __future__ import annotations

DOCUMENTATION = r"""
module: port_listen
short_description: Listen for a short while on ports that have no service yet
version_added: 0.1.0
description:
  - Lets peers test the way to a port before the service that belongs there is installed. Ports that something listens on are left alone.
  - The listeners end by themselves and leave nothing behind. A new call ends those of the call before it.
  - Whatever is sent to them is swallowed and counted, which M(bzzz.cluster.benchmark) uses to measure throughput.
options:
  ports:
    description: TCP ports.
    type: list
    elements: int
    default: []
  seconds:
    description: When the listeners end, 120 at most.
    type: int
    default: 30
  state:
    description: V(stopped) ends them now, so that services can take their ports.
    type: str
    choices: [started, stopped]
    default: started
attributes:
  check_mode:
    description: Can run in check mode.
    support: partial
    details: Nothing is done in check mode.
  diff_mode:
    description: Shows what differs in diff mode.
    support: none
  idempotent:
    description: It never tells of a change, and nothing is left behind.
    support: full
author:
  - BZZZ cluster setup maintainers (@bzzz)
"""

EXAMPLES = r"""
- name: Something listens on every port of the cluster
  bzzz.cluster.port_listen:
    ports: [8080, 8081, 3000]

- name: Every node reaches every port of every other
  bzzz.cluster.probe:
    roles: [firewall]

- name: The ports are free again
  bzzz.cluster.port_listen:
    state: stopped
"""

RETURN = r"""
listening:
  description: Ports that are listened on for the test.
  returned: success
  type: list
  elements: int
  sample: [8080]
taken:
  description: Ports that were left alone, each with the reason.
  returned: success
  type: dict
  sample: {"22": Address already in use}
"""

#!/usr/bin/python
# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of this name; it runs node program ``bench``."""

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark
short_description: Measure a node, briefly
version_added: 0.1.0
description:
  - Measures what is asked for, one after the other, and holds it against a minimum. Bounded in time and volume; leaves nothing behind.
  - Every node sends to the one after it in the order of names. On each of them M(bzzz.cluster.port_listen) must listen on the port.
options:
  disk:
    description: Write speed down to the device.
    type: dict
    suboptions:
      path:
        description: A directory on the file system to measure.
        type: path
        required: true
      mib:
        description: How much to write, in MiB, 64 at most.
        type: int
        default: 32
      min_mib_per_second:
        description: Least speed; V(0) only measures.
        type: float
        default: 0
  http:
    description: Latency of a service, each request on a new connection.
    type: dict
    suboptions: &http
      url:
        description: What to get, from the node.
        type: str
        required: true
      requests:
        description: How many requests, 200 at most.
        type: int
        default: 5
      ca:
        description: File on the node with the authority that issued the service's certificate.
        type: path
      certificate:
        description: File on the node with a client certificate.
        type: path
      key:
        description: File on the node with the client certificate's key.
        type: path
      token_file:
        description: File on the node with a bearer token.
        type: path
      server_name:
        description: Name that the service's certificate is for, where it isn't that of the URL.
        type: str
      max_median_ms:
        description: Longest median; V(0) only measures.
        type: float
        default: 0
  gateway:
    description: The same of the AI gateway.
    type: dict
    suboptions: *http
  models:
    description: Tokens a second that models write. One that was not loaded is loaded for it, and unloaded again.
    type: dict
    suboptions:
      url:
        description: The node's Ollama.
        type: str
        required: true
      names:
        description: Which of them to measure, by their names with tags, where the node holds them.
        type: list
        elements: str
        required: true
      tokens:
        description: How many tokens each is to write at most.
        type: int
        default: 32
      min_tokens_per_second:
        description: Least speed; V(0) only measures.
        type: float
        default: 0
  network:
    description: Throughput to the next node.
    type: dict
    suboptions:
      peers:
        description: All nodes, each with C(name) and C(address).
        type: list
        elements: dict
        required: true
      port:
        description: Port on which every node listens for the test.
        type: int
        required: true
      mib:
        description: How much to send, in MiB, 64 at most.
        type: int
        default: 32
      min_mib_per_second:
        description: Least throughput; V(0) only measures.
        type: float
        default: 0
  cpu:
    description: SHA-256 of one thread.
    type: dict
    suboptions:
      seconds:
        description: How long, 5 at most.
        type: float
        default: 0.5
      min_mib_per_second:
        description: Least speed; V(0) only measures.
        type: float
        default: 0
  fail:
    description: Whether a figure beyond its limit fails the task.
    type: bool
    default: true
attributes:
  check_mode:
    description: Can run in check mode.
    support: partial
    details: Nothing is done in check mode.
  diff_mode:
    description: Shows what differs in diff mode.
    support: none
  idempotent:
    description: Measures anew each time, and never tells of a change.
    support: full
author:
  - BZZZ cluster setup maintainers (@bzzz)
"""

EXAMPLES = r"""
- name: Disk and network
  bzzz.cluster.benchmark:
    disk:
      path: /srv/bzzz/data
      min_mib_per_second: 100
    network:
      peers: "{{ bzzz_cluster.nodes }}"
      port: 3000
"""

RETURN = r"""
figures:
  description: What was measured, by kind; a kind that could not be measured has C(error).
  returned: success
  type: dict
  sample: {"disk": {"mib": 64, "mib_per_second": 512.4}}
checks:
  description: One for each measurement.
  returned: success
  type: list
  elements: dict
  contains:
    id: {description: The entry's name., type: str, sample: service-port}
    requirement: {description: "Requirements that it proves, separated by commas.", type: str, sample: "1.2.1"}
    role: {description: Role that the entry belongs to., type: str, sample: service}
    node: {description: Node that was looked at., type: str, sample: bzzz-node1}
    title: {description: What is to hold., type: str, sample: The service listens on its port}
    status: {description: "V(pass), V(warn), V(fail) or V(skip).", type: str, sample: fail}
    seen: {description: What was seen., type: str, sample: nothing listens there}
    expected: {description: What was expected., type: str, sample: tcp port 8080}
    remedy: {description: What to do about it., type: str, sample: systemctl restart bzzz}
    data: {description: Figures behind it., type: dict, sample: {}}
"""

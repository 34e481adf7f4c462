#!/usr/bin/python
# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: port_facts
short_description: Facts about a node's listening ports
version_added: 0.1.0
description:
  - Reads who listens on which port from /proc, with process and systemd unit.
author:
  - BZZZ cluster setup maintainers (@bzzz)
attributes:
  check_mode:
    support: full
    description: Can run in check mode without changing anything; it never changes anything.
  diff_mode:
    support: none
    description: Has nothing to compare.
  idempotent:
    support: full
    description: Looks only, and never changes anything.
  facts:
    support: full
    description: Returns its findings as C(ansible_facts).
  platform:
    support: full
    platforms: linux
    description: Reads the Linux kernel's own files and interfaces.
"""

EXAMPLES = r"""
- name: See who listens where
  bzzz.cluster.port_facts:
  become: true
"""

RETURN = r"""
ansible_facts:
  description: The facts.
  type: dict
  returned: success
  contains:
    bzzz_ports:
      description: The node's ports.
      type: dict
      returned: success
      contains:
        listeners:
          description: Listening TCP and bound UDP sockets, by port.
          type: list
          returned: success
          elements: dict
          contains:
            protocol:
              description: C(tcp) or C(udp).
              type: str
              returned: success
              sample: tcp
            address:
              description: Address; C(0.0.0.0) and C(::) are every address.
              type: str
              returned: success
              sample: 0.0.0.0
            port:
              description: Port.
              type: int
              returned: success
              sample: 22
            pid:
              description: Process that holds it; C(null) for the kernel's own and without root's rights.
              type: int
              returned: success
              sample: 612
            program:
              description: Name of the process.
              type: str
              returned: success
              sample: sshd
            unit:
              description: systemd unit that it runs in.
              type: str
              returned: success
              sample: ssh.service
        reserved:
          description: Ports and ranges that the kernel never gives out by itself.
          type: list
          returned: success
          elements: str
          sample: []
        ephemeral:
          description: Ports that the kernel gives out for outgoing connections.
          type: dict
          returned: success
          contains:
            first:
              description: First one.
              type: int
              returned: success
              sample: 32768
            last:
              description: Last one.
              type: int
              returned: success
              sample: 60999
        unprivileged_start:
          description: Lowest port that needs no privilege.
          type: int
          returned: success
          sample: 1024
        sshd_ours:
          description: Ports that sshd has by the cluster's own file alone, and loses when C(ssh_port) no longer asks for them.
          type: list
          returned: success
          elements: int
          sample: [2222]
        problems:
          description: What could not be read or is not as it should be.
          type: list
          returned: success
          elements: dict
          contains:
            message:
              description: What was found.
              type: str
              returned: success
            remedy:
              description: What to do about it.
              type: str
              returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bzzz.cluster.plugins.module_utils.node import ports


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    module.exit_json(ansible_facts={"bzzz_ports": ports.main(module.params)})


if __name__ == "__main__":
    main()

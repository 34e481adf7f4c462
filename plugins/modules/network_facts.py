#!/usr/bin/python
# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: network_facts
short_description: Facts about a node's network interfaces
version_added: 0.1.0
description:
  - Asks the kernel for interfaces, addresses and routes by rtnetlink; needs neither iproute2 nor anything else on the node.
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
- name: See the interfaces of every node
  bzzz.cluster.network_facts:

- name: Name the interface with the default route
  ansible.builtin.debug:
    var: ansible_facts.bzzz_network.primary_interface
"""

RETURN = r"""
ansible_facts:
  description: The facts.
  type: dict
  returned: success
  contains:
    bzzz_network:
      description: The node's network.
      type: dict
      returned: success
      contains:
        interfaces:
          description: Every interface, by name.
          type: list
          returned: success
          elements: dict
          contains:
            name:
              description: Name.
              type: str
              returned: success
              sample: eth0
            kind:
              description: >-
                C(physical), C(wifi), C(infiniband), C(loopback), C(virtual), or the kernel's name of the kind, such as C(bridge),
                C(bond), C(vlan), C(veth), C(wireguard).
              type: str
              returned: success
              sample: physical
            state:
              description: Operational state (RFC 2863), such as C(up), C(down), C(unknown).
              type: str
              returned: success
              sample: up
            up:
              description: Whether it is switched on.
              type: bool
              returned: success
              sample: true
            carrier:
              description: Whether the link is there.
              type: bool
              returned: success
              sample: true
            speed_mbps:
              description: Speed in Mbit/s; C(null) where the driver does not tell.
              type: int
              returned: success
              sample: 10000
            mtu:
              description: Largest packet, in bytes.
              type: int
              returned: success
              sample: 1500
            mac:
              description: Hardware address.
              type: str
              returned: success
              sample: "52:54:00:12:34:56"
            driver:
              description: Kernel driver of the card; C(null) for virtual interfaces.
              type: str
              returned: success
              sample: ixgbe
            master:
              description: Bond or bridge that it belongs to.
              type: str
              returned: success
            addresses:
              description: Its addresses.
              type: list
              returned: success
              elements: dict
              contains:
                address:
                  description: The address.
                  type: str
                  returned: success
                  sample: 192.168.1.10
                prefix:
                  description: Length of the network prefix.
                  type: int
                  returned: success
                  sample: 24
                network:
                  description: Network that it is in.
                  type: str
                  returned: success
                  sample: 192.168.1.0/24
                family:
                  description: 4 or 6.
                  type: int
                  returned: success
                  sample: 4
                scope:
                  description: C(global), C(site), C(link) or C(host).
                  type: str
                  returned: success
                  sample: global
                dynamic:
                  description: Whether it has a lifetime (DHCP, router advertisement).
                  type: bool
                  returned: success
                  sample: false
                temporary:
                  description: Whether it is an IPv6 privacy address.
                  type: bool
                  returned: success
                  sample: false
        routes:
          description: Unicast routes of the main table, default routes first, the preferred one foremost.
          type: list
          returned: success
          elements: dict
          contains:
            destination:
              description: Network, or C(default).
              type: str
              returned: success
              sample: default
            gateway:
              description: Next hop; C(null) where directly reached.
              type: str
              returned: success
              sample: 192.168.1.1
            interface:
              description: Interface.
              type: str
              returned: success
              sample: eth0
            metric:
              description: The lower one is preferred.
              type: int
              returned: success
              sample: 100
            source:
              description: Preferred source address.
              type: str
              returned: success
            family:
              description: 4 or 6.
              type: int
              returned: success
              sample: 4
        primary_interface:
          description: The interface that carries the preferred default route (IPv4 before IPv6).
          type: str
          returned: success
          sample: eth0
        admin_address:
          description: Where the SSH session that asked this comes from; C(null) when it was not asked over SSH.
          type: str
          returned: success
          sample: 192.168.1.2
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
from ansible_collections.bzzz.cluster.plugins.module_utils.node import network


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    module.exit_json(ansible_facts={"bzzz_network": network.main(module.params)})


if __name__ == "__main__":
    main()

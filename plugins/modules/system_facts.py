#!/usr/bin/python
# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: system_facts
short_description: Facts about a node's system
version_added: 0.1.0
description:
  - Reads operating system, CPU topology, memory, disks, mounts, clock, container engine, an existing Ollama and installed tools.
  - Needs nothing installed on the node. A file system or service that does not answer is a problem in the result, never a failure.
options:
  tool_timeout_seconds:
    description:
      - How long one tool on the node may take before its reading is given up and reported as a problem.
    type: int
    default: 10
  ollama_port:
    description:
      - Port on which an existing Ollama is looked for, besides those that a program named C(ollama) listens on.
    type: int
    default: 11434
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
- name: See what a node is made of
  bzzz.cluster.system_facts:
  become: true
"""

RETURN = r"""
ansible_facts:
  description: The facts.
  type: dict
  returned: success
  contains:
    bzzz_system:
      description: The node's system.
      type: dict
      returned: success
      contains:
        os:
          description: Operating system.
          type: dict
          returned: success
          contains:
            id:
              description: Distribution (os-release ID).
              type: str
              returned: success
              sample: debian
            like:
              description: Distributions that it derives from.
              type: list
              returned: success
              elements: str
              sample: []
            version:
              description: Version.
              type: str
              returned: success
              sample: "12"
            codename:
              description: Code name of the version.
              type: str
              returned: success
              sample: bookworm
            name:
              description: Name in full.
              type: str
              returned: success
              sample: Debian GNU/Linux 12 (bookworm)
            architecture:
              description: Machine architecture.
              type: str
              returned: success
              sample: x86_64
            kernel:
              description: Kernel release.
              type: str
              returned: success
              sample: 6.1.0-31-amd64
            hostname:
              description: Host name.
              type: str
              returned: success
              sample: node1
            python_version:
              description: Python that read these facts.
              type: str
              returned: success
              sample: 3.11.2
            service_manager:
              description: C(systemd), or the name of process 1.
              type: str
              returned: success
              sample: systemd
            container:
              description: Kind of container that the node is; C(null) for a machine.
              type: str
              returned: success
            hardware:
              description: Maker and product.
              type: str
              returned: success
            machine_id:
              description: machine-id(5).
              type: str
              returned: success
            boot_id:
              description: Changes with every boot.
              type: str
              returned: success
        cpu:
          description: Processors that are online.
          type: dict
          returned: success
          contains:
            model:
              description: Name.
              type: str
              returned: success
              sample: AMD EPYC 7543 32-Core Processor
            architecture:
              description: Machine architecture.
              type: str
              returned: success
              sample: x86_64
            sockets:
              description: Sockets.
              type: int
              returned: success
              sample: 2
            cores:
              description: Cores of all sockets.
              type: int
              returned: success
              sample: 64
            threads:
              description: Threads of all cores.
              type: int
              returned: success
              sample: 128
            flags:
              description: Instruction sets that speed up models.
              type: list
              returned: success
              elements: str
              sample: [avx2, fma]
            governor:
              description: Frequency governor.
              type: str
              returned: success
              sample: performance
            numa:
              description: NUMA nodes.
              type: list
              returned: success
              elements: dict
              contains:
                node:
                  description: Number.
                  type: int
                  returned: success
                  sample: 0
                cpus:
                  description: Its threads.
                  type: str
                  returned: success
                  sample: "0-31,64-95"
                memory_total_mib:
                  description: Its memory, in MiB.
                  type: int
                  returned: success
                  sample: 257000
        memory:
          description: Memory.
          type: dict
          returned: success
          contains:
            total_mib:
              description: Total, in MiB.
              type: int
              returned: success
              sample: 515000
            available_mib:
              description: Available to programs, in MiB.
              type: int
              returned: success
              sample: 500000
            swap_total_mib:
              description: Swap, in MiB.
              type: int
              returned: success
              sample: 0
            swap_free_mib:
              description: Free swap, in MiB.
              type: int
              returned: success
              sample: 0
            swappiness:
              description: vm.swappiness.
              type: int
              returned: success
              sample: 60
            huge_pages:
              description: Pools of huge pages.
              type: list
              returned: success
              elements: dict
              contains:
                size_kib:
                  description: Size of a page, in KiB.
                  type: int
                  returned: success
                  sample: 2048
                total:
                  description: Pages.
                  type: int
                  returned: success
                  sample: 0
                free:
                  description: Free pages.
                  type: int
                  returned: success
                  sample: 0
            transparent_huge_pages:
              description: C(always), C(madvise) or C(never).
              type: str
              returned: success
              sample: madvise
        disks:
          description: Block devices, without loop devices, RAM disks and empty drives.
          type: list
          returned: success
          elements: dict
          contains:
            name:
              description: Name.
              type: str
              returned: success
              sample: nvme0n1
            size_mib:
              description: Size, in MiB.
              type: int
              returned: success
              sample: 953869
            model:
              description: Model.
              type: str
              returned: success
            rotational:
              description: Whether it turns.
              type: bool
              returned: success
              sample: false
            removable:
              description: Whether it can be taken out.
              type: bool
              returned: success
              sample: false
            read_only:
              description: Whether it can only be read.
              type: bool
              returned: success
              sample: false
        mounts:
          description: Mounted file systems that hold data.
          type: list
          returned: success
          elements: dict
          contains:
            path:
              description: Where it is mounted.
              type: str
              returned: success
              sample: /
            device:
              description: What is mounted.
              type: str
              returned: success
              sample: /dev/nvme0n1p2
            type:
              description: File system.
              type: str
              returned: success
              sample: ext4
            read_only:
              description: Whether it can only be read.
              type: bool
              returned: success
              sample: false
            total_mib:
              description: Size, in MiB; C(null) where its server does not answer.
              type: int
              returned: success
              sample: 938000
            available_mib:
              description: Available to those who are not root, in MiB.
              type: int
              returned: success
              sample: 700000
            inodes_available:
              description: Files that can still be made.
              type: int
              returned: success
              sample: 60000000
        clock:
          description: Clock.
          type: dict
          returned: success
          contains:
            time:
              description: Seconds since the epoch, when this was read.
              type: float
              returned: success
              sample: 1767225600.5
            synchronised:
              description: Whether the kernel holds its clock for synchronised; C(null) where it does not tell.
              type: bool
              returned: success
              sample: true
            error_max_seconds:
              description: Largest error that the kernel reckons with, in seconds.
              type: float
              returned: success
              sample: 0.02
            services:
              description: Time services that run.
              type: list
              returned: success
              elements: str
              sample: [systemd-timesyncd]
            timezone:
              description: Time zone.
              type: str
              returned: success
              sample: Etc/UTC
        container_engine:
          description: Docker or Podman; C(null) where there is neither.
          type: dict
          returned: success
          contains:
            name:
              description: C(docker) or C(podman).
              type: str
              returned: success
              sample: docker
            path:
              description: Program.
              type: str
              returned: success
              sample: /usr/bin/docker
            version:
              description: Version that the daemon tells.
              type: str
              returned: success
              sample: 20.10.24
            running:
              description: Whether the daemon answers; C(null) for Podman, which has none.
              type: bool
              returned: success
              sample: true
            compose:
              description: C(plugin), the path of a separate program, or C(null).
              type: str
              returned: success
              sample: plugin
            published:
              description:
                - Ports of Docker's containers that are published on more than the loopback, each with C(protocol), C(port), C(container)
                  and C(filtered), whether Docker's chain C(DOCKER-USER) has rules, which say who gets in, and is asked first.
              type: list
              returned: success
              elements: dict
              sample: [{"protocol": "tcp", "port": 8080, "container": "web", "filtered": false}]
        ollama:
          description: An Ollama that is already there; C(null) where there is none.
          type: dict
          returned: success
          contains:
            binary:
              description: Program.
              type: str
              returned: success
              sample: /usr/local/bin/ollama
            unit:
              description: systemd unit.
              type: str
              returned: success
              sample: ollama.service
            version:
              description: Version of the server, else of the program.
              type: str
              returned: success
              sample: 0.13.0
            endpoint:
              description: Base URL that answers, seen from the node itself; C(null) where none does.
              type: str
              returned: success
              sample: http://127.0.0.1:11434
            endpoints:
              description: All base URLs that answer.
              type: list
              returned: success
              elements: str
              sample: ["http://127.0.0.1:11434"]
            listens_on:
              description: Addresses that it listens on.
              type: list
              returned: success
              elements: str
              sample: [127.0.0.1]
            models:
              description: Models of the first endpoint.
              type: list
              returned: success
              elements: dict
              contains:
                name:
                  description: Name.
                  type: str
                  returned: success
                  sample: llama3.1:8b
                digest:
                  description: SHA-256 of its manifest.
                  type: str
                  returned: success
                  sample: 46e0c10c039e019119339687c3c1757cc81b9da49709a3b3924863ba87ca666e
                size_mib:
                  description: Size, in MiB.
                  type: int
                  returned: success
                  sample: 4693
                parameters:
                  description: Number of parameters.
                  type: str
                  returned: success
                  sample: 8.0B
                quantization:
                  description: Quantisation.
                  type: str
                  returned: success
                  sample: Q4_K_M
        firewall:
          description: The node's firewall.
          type: dict
          returned: success
          contains:
            tool:
              description:
                - What rules are best made with here. V(firewalld) where it is active, else the first that is installed of V(ufw),
                  V(nftables), V(iptables).
              type: str
              returned: success
              sample: nftables
            active:
              description: Managers of rules, of V(firewalld) and V(ufw), that somebody else has put in force.
              type: list
              elements: str
              returned: success
              sample: []
        dependencies:
          description: Tools that the cluster's roles use, by name; each has C(path) (C(null) where it is missing) and C(version) (of its Debian package).
          type: dict
          returned: success
          sample: {openssl: {path: /usr/bin/openssl, version: 3.0.15-1}}
        sets:
          description: The cluster's configuration sets that have begun to land on the node.
          type: list
          returned: success
          elements: str
          sample: [firewall, ssh]
        ids:
          description: The numbers of the services' user and of its groups; C(null) where there is none yet.
          type: dict
          returned: success
          contains:
            user:
              description: Of user C(bzzz).
              type: int
              returned: success
              sample: 998
            group:
              description: Of the group that it is in first.
              type: int
              returned: success
              sample: 997
            tls_group:
              description: Of group C(bzzz-tls), which reads the node's keys.
              type: int
              returned: success
              sample: 996
        etcd:
          description: The cluster's etcd on the node; C(null) where it has no data here.
          type: dict
          returned: success
          contains:
            data_path:
              description: Directory of its data.
              type: str
              returned: success
              sample: /var/lib/etcd/bzzz
            members:
              description: The members' names, by the etcd that runs, else by its configuration.
              type: list
              returned: success
              elements: str
              sample: [node1, node2, node3]
            started:
              description: Those members that have ever been up; C(null) where no etcd answers.
              type: list
              returned: success
              elements: str
              sample: [node1, node2, node3]
        run_id:
          description: The run of ansible-playbook that gathered this, when M(bzzz.cluster.facts) did.
          type: str
          returned: success
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
from ansible_collections.bzzz.cluster.plugins.module_utils.node import system


def main() -> None:
    module = AnsibleModule(
        argument_spec={"tool_timeout_seconds": {"type": "int", "default": 10}, "ollama_port": {"type": "int", "default": 11434}},
        supports_check_mode=True,
    )
    module.exit_json(ansible_facts={"bzzz_system": system.main(module.params)})


if __name__ == "__main__":
    main()

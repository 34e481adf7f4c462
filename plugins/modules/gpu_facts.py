#!/usr/bin/python
# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_facts
short_description: Facts about a node's GPUs
version_added: 0.1.0
description:
  - Finds GPUs on the PCI bus and asks NVML, C(nvidia-smi), C(amd-smi), C(rocm-smi) or the kernel what they are.
  - Needs nothing installed on the node. A missing, failing or hanging tool is a problem in the result, never a failure.
options:
  tool_timeout_seconds:
    description:
      - How long one tool on the node may take before its reading is given up and reported as a problem.
    type: int
    default: 10
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
- name: See every GPU of the cluster
  bzzz.cluster.gpu_facts:

- name: Stop where a GPU has less than 16 GiB
  ansible.builtin.assert:
    that: ansible_facts.bzzz_gpu.devices | map(attribute='memory_total_mib') | min >= 16384
"""

RETURN = r"""
ansible_facts:
  description: The facts.
  type: dict
  returned: success
  contains:
    bzzz_gpu:
      description: The node's GPUs.
      type: dict
      returned: success
      contains:
        devices:
          description: The GPUs. Empty values are C(null) where nothing tells them.
          type: list
          returned: success
          elements: dict
          contains:
            index:
              description: The vendor tool's number of the device; C(null) where no driver serves it.
              type: int
              returned: success
              sample: 0
            vendor:
              description: C(nvidia) or C(amd).
              type: str
              returned: success
              sample: nvidia
            model:
              description: Name of the card.
              type: str
              returned: success
              sample: NVIDIA A100-SXM4-80GB
            uuid:
              description: NVIDIA's UUID or AMD's unique id.
              type: str
              returned: success
              sample: GPU-513536b6-7d19-9063-b049-1e69664bb298
            pci_address:
              description: Place on the PCI bus, as sysfs writes it.
              type: str
              returned: success
              sample: "0000:01:00.0"
            pci_id:
              description: PCI vendor and device.
              type: str
              returned: success
              sample: "10de:20b2"
            driver_version:
              description: Version of the kernel driver.
              type: str
              returned: success
              sample: 535.54.03
            runtime_version:
              description: Newest CUDA that the driver serves, or the installed ROCm.
              type: str
              returned: success
              sample: "12.2"
            compute_capability:
              description: CUDA compute capability or AMD graphics version.
              type: str
              returned: success
              sample: "8.0"
            architecture:
              description: Family of the chip.
              type: str
              returned: success
              sample: Ampere
            memory_total_mib:
              description: Memory of the card, in MiB.
              type: int
              returned: success
              sample: 81920
            memory_used_mib:
              description: Memory in use, in MiB.
              type: int
              returned: success
              sample: 50
            numa_node:
              description: NUMA node that the card hangs on.
              type: int
              returned: success
              sample: 0
            pcie_gts:
              description: Most GT/s of a PCIe lane.
              type: float
              returned: success
              sample: 16.0
            pcie_width:
              description: Most PCIe lanes.
              type: int
              returned: success
              sample: 16
            temperature_c:
              description: Temperature, in degrees Celsius.
              type: float
              returned: success
              sample: 27
            power_draw_w:
              description: Power drawn now, in watts.
              type: float
              returned: success
              sample: 67.03
            power_limit_w:
              description: Power that the card may draw, in watts.
              type: float
              returned: success
              sample: 500
            ecc:
              description: Whether memory errors are corrected.
              type: bool
              returned: success
              sample: true
            mig:
              description: NVIDIA's partitions; C(null) where the card has no MIG.
              type: dict
              returned: success
              contains:
                enabled:
                  description: Whether MIG is on.
                  type: bool
                  returned: success
                  sample: true
                devices:
                  description: The MIG devices.
                  type: list
                  returned: success
                  elements: dict
                  contains:
                    index:
                      description: Number of the MIG device.
                      type: int
                      returned: success
                      sample: 0
                    uuid:
                      description: Its UUID; only NVML tells it.
                      type: str
                      returned: success
                    memory_total_mib:
                      description: Its memory, in MiB.
                      type: int
                      returned: success
                      sample: 19968
            health:
              description:
                - C(ok); C(degraded), it works and wants a look (heat, a reset that is due); C(failed), it must be reset or its memory fails;
                  C(null) where the source does not tell.
              type: str
              returned: success
              sample: ok
            source:
              description: What told it, one of C(nvml), C(nvidia-smi), C(amd-smi), C(rocm-smi), C(sysfs), the driver in /proc, or only C(pci).
              type: str
              returned: success
              sample: nvidia-smi
        links:
          description: How each two GPUs of one vendor are joined.
          type: list
          returned: success
          elements: dict
          contains:
            vendor:
              description: Vendor of both.
              type: str
              returned: success
              sample: nvidia
            between:
              description: The two devices' C(index), the lower one first.
              type: list
              returned: success
              elements: int
              sample: [0, 1]
            kind:
              description: C(nvlink), C(xgmi) or C(pcie).
              type: str
              returned: success
              sample: nvlink
            path:
              description: >-
                C(NV#) (so many bonded NVLinks), C(XGMI), C(PIX) (one PCIe switch), C(PXB) (several), C(PHB) (the host bridge),
                C(NODE) (host bridges of one NUMA node) or C(SYS) (across NUMA nodes).
              type: str
              returned: success
              sample: NV12
            hops:
              description: Hops, where the tool counts them.
              type: int
              returned: success
              sample: 1
            weight:
              description: AMD's weight of the link; less is nearer.
              type: int
              returned: success
              sample: 15
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
from ansible_collections.bzzz.cluster.plugins.module_utils.node import gpu


def main() -> None:
    module = AnsibleModule(argument_spec={"tool_timeout_seconds": {"type": "int", "default": 10}}, supports_check_mode=True)
    module.exit_json(ansible_facts={"bzzz_gpu": gpu.main(module.params)})


if __name__ == "__main__":
    main()

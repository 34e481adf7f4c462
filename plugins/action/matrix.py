# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Put the nodes' rows together; no node is contacted. See plugins/modules/matrix.py."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.bzzz.cluster.plugins.module_utils import probe


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars or {})
        _checked, args = self.validate_argument_spec(
            {
                "checks": {"type": "list", "elements": "dict", "required": True},
                "clock_offset_max_seconds": {"type": "float", "required": True},
            }
        )
        cells = probe.matrix(args["checks"])
        most = args["clock_offset_max_seconds"]
        apart, uneven = probe.clocks_apart(cells, most), probe.mtus_differ(cells)
        common = {
            "requirement": "1.3.4",
            "role": self._task._role.get_name().rpartition(".")[2] if self._task._role else "",
            "node": ", ".join(sorted(cells)),
            "data": {},
        }
        checks = [
            {
                **common,
                "id": "clocks_between_nodes",
                "title": "The nodes' clocks agree",
                "status": "fail" if apart else "pass",
                "seen": "; ".join(apart) or f"no two of {len(cells)} nodes are more than {most:g} s apart",
                "expected": f"at most {most:g} s apart",
                "remedy": "Let every node take its time from the same source: apt-get install systemd-timesyncd; timedatectl set-ntp true",
            },
            {
                **common,
                "id": "mtu_between_nodes",
                "title": "The nodes agree on the size of packets",
                "status": "warn" if uneven else "pass",
                "seen": "; ".join(uneven) or f"any two of {len(cells)} nodes send each other packets of the same size",
                "expected": "one MTU both ways and on the way: larger packets are lost without a word",
                "remedy": "Give the nodes' interfaces, and the switches between them, the same MTU: ip link set dev INTERFACE mtu BYTES, "
                "and the same in the node's network configuration.",
            },
        ]
        result.update(changed=False, matrix=cells, checks=checks, failed=bool(apart), msg=probe.summary("between nodes", checks))
        return result

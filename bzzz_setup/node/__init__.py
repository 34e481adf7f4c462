# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The embedded node service: health, metrics, REST and status page of one node; membership and election in etcd.

It runs on nodes (Python >= 3.10) from its release artifact, see ``bzzz_setup.release``.
"""

from __future__ import annotations

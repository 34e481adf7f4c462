# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: proxy_environment
short_description: The declared proxies as a file of variables for a service
version_added: "0.1.0"
author:
  - BZZZ cluster setup maintainers
description:
  - What systemd's C(EnvironmentFile) reads. User and password of the proxies are left to the secret C(proxy_login) of
    M(bzzz.cluster.config_set), which P(bzzz.cluster.proxy_login#filter) makes.
options:
  _input:
    description: Options of role C(downloads), as in C(declared.downloads).
    type: dict
    required: true
  nodes:
    description: Nodes of the cluster, as in C(bzzz_cluster.nodes), which are reached directly.
    type: list
    elements: dict
    required: true
  subnet:
    description: Subnet of the cluster.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Proxies of a service
  ansible.builtin.debug:
    msg: "{{ declared.downloads | bzzz.cluster.proxy_environment(bzzz_cluster.nodes, declared.network.subnet) }}"
"""

RETURN = r"""
_value:
  description: Lines of variables; empty where no proxy is declared.
  type: str
"""

import shlex
from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils import downloads


def proxy_environment(options: dict[str, Any], nodes: list[Any], subnet: str | None) -> str:
    http, https = options["http_proxy"], options["https_proxy"] or options["http_proxy"]
    if not https:
        return ""
    direct = ",".join(downloads.without_proxy(options["no_proxy"], nodes, subnet))
    found = {"HTTP_PROXY": http, "HTTPS_PROXY": https}
    lines = [f"{name}={shlex.quote(url.replace('://', '://@@proxy_login@@', 1))}" for name, url in found.items() if url]
    return "\n".join(["# Managed by bzzz.cluster", *lines, f"NO_PROXY={shlex.quote(direct)}", ""])


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"proxy_environment": proxy_environment}

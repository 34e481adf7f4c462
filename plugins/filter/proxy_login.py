# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: proxy_login
short_description: User and password as a proxy's URL has them
version_added: "0.1.0"
author:
  - BZZZ cluster setup maintainers
description:
  - What stands before the host in the URL of a proxy that wants a login.
options:
  _input:
    description: User and password, with a colon between them, as C(downloads_proxy_credentials) is; empty for none.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: A proxy with its login
  ansible.builtin.set_fact:
    proxy: "http://{{ 'anna:p@ss' | bzzz.cluster.proxy_login }}proxy.example.com:3128"
"""

RETURN = r"""
_value:
  description: Both, percent-encoded and with an at sign behind them; empty for no login.
  type: str
"""

from typing import Any

from ansible_collections.bzzz.cluster.plugins.module_utils import downloads


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"proxy_login": downloads.login}

# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's way of downloads, as declared for the node that a task is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..module_utils.downloads import Way, way, without_proxy

REMEDY = (
    "check the way there from this admin host (curl -I with that address): the downloads_* options, or without them the environment "
    "(https_proxy, SSL_CERT_FILE), and that the address is right"
)


def declared_way(task_vars: dict[str, Any], templar: Any, of_node: bool = False) -> Way:
    """From the effective declaration in a task's variables; the environment's where nothing is declared. OSError: a file cannot be read.

    of_node: the node's own, which has the certificates already.
    """
    facts = task_vars.get("ansible_facts") or {}
    declared = (facts.get("bzzz_declared") or {}).get(task_vars.get("inventory_hostname"))
    if not declared or "downloads" not in declared:
        return Way()
    options = declared["downloads"]
    # The declaration masks secrets.
    name = "downloads_proxy_credentials"
    credentials = str(templar.template(task_vars.get(name)) or "") if options["proxy_credentials"] else ""
    folder = Path(str(task_vars.get("inventory_dir") or "."))
    own = without_proxy(options["no_proxy"], facts["bzzz_cluster"]["nodes"], declared["network"]["subnet"])
    if of_node:
        options = {**options, "on_admin_host": True, "ca_files": []}
    return way(options, credentials, folder, own)

# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Certificates: lives that fit into each other, names that a certificate can carry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..addresses import address_of, is_host_name
from ..problems import Problem, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..cluster import Cluster
    from ..declaration import Declared


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> Iterator[Problem]:
    """Certificates that would outlive their authority or be renewed all the time."""
    for node, roles in declared.items():
        tls = roles["tls"]
        authority, leaf, renew = tls["ca_valid_days"], tls["leaf_valid_days"], tls["renew_before_days"]
        if leaf > authority:
            message = f"A node's certificate would outlive the authority that signs it ({authority} days)."
            remedy = f"Set tls_leaf_valid_days to {authority} or less, or tls_ca_valid_days to {leaf} or more."
            yield problem("tls_leaf_valid_days", message, remedy, value=leaf, node=node)
        if renew >= leaf:
            message = f"A certificate that lives {leaf} days would be renewed by every run."
            remedy = f"Set tls_renew_before_days to about a third of tls_leaf_valid_days ({max(leaf // 3, 0)})."
            yield problem("tls_renew_before_days", message, remedy, value=renew, node=node)
        for name in tls["extra_names"]:
            if not (address_of(name) or is_host_name(name.removeprefix("*."))):
                message = f"'{name}' is neither a DNS name nor an address."
                yield problem("tls_extra_names", message, "Write names such as bzzz.example.com or addresses.", value=name, node=node)
            elif address_of(name) and str(address_of(name)) != name:
                message = f"'{name}' is not the address's plain form, which certificates have."
                yield problem("tls_extra_names", message, f"Write {address_of(name)}.", value=name, node=node)

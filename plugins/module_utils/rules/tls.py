# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Certificates: lives that fit into each other, names that a certificate can carry, files that clients will accept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..addresses import address_of, is_host_name
from ..problems import Problem, problem
from ..uploaded import Upload, handshake, is_encrypted, judge
from .downloads import judge_certificates, text_of

if TYPE_CHECKING:
    import datetime
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
        yield from _together(tls, node)


def _together(tls: Mapping[str, Any], node: str) -> Iterator[Problem]:
    """The options of an uploaded certificate need each other."""
    for option in ("certificate_file", "key_file"):
        if tls["mode"] == "uploaded" and not tls[option]:
            message = "An uploaded certificate needs it."
            yield problem(
                f"tls_{option}", message, f"Name the file on this admin host in tls_{option}, or set tls_mode: private_ca.", node=node
            )
    for option in ("certificate_file", "key_file", "key_passphrase", "ca_file"):
        if tls["mode"] != "uploaded" and tls[option]:
            message = "This has no effect without tls_mode: uploaded."
            yield problem(f"tls_{option}", message, "Set tls_mode: uploaded, or remove this.", node=node, severity="warning")


def files(
    declared: Mapping[str, Declared], folders: Mapping[str, Path], passphrases: Mapping[str, str | None], now: datetime.datetime
) -> Iterator[Problem]:
    """What is wrong with uploaded certificates, whose files start in the node's inventory folder; `passphrases` are in clear."""
    for node, roles in declared.items():
        tls = roles["tls"]
        if tls["mode"] == "uploaded" and tls["certificate_file"] and tls["key_file"]:
            yield from _uploaded(tls, folders[node], passphrases.get(node), node, now)


def _uploaded(tls: Mapping[str, Any], folder: Path, passphrase: str | None, node: str, now: datetime.datetime) -> Iterator[Problem]:
    paths = {option: folder / Path(tls[option]).expanduser() for option in ("certificate_file", "key_file", "ca_file") if tls[option]}
    texts: dict[str, str] = {}
    wrong = False
    for option, path in paths.items():
        text, why = text_of(path)
        if text is None:
            yield problem(f"tls_{option}", why, "Name a PEM file that this user can read.", value=tls[option], node=node)
            wrong = True
        else:
            texts[option] = text
    for severity, message, remedy in judge_certificates(texts["ca_file"], now) if "ca_file" in texts else ():
        yield problem("tls_ca_file", message, remedy, value=tls["ca_file"], node=node, severity=severity)  # type: ignore[arg-type]
        wrong = wrong or severity == "error"
    if wrong:
        return
    given = Upload(texts["certificate_file"], texts["key_file"], passphrase, texts.get("ca_file"), client_names(tls, node))
    for fault in judge(given, now):
        value = None if fault.option == "key_passphrase" else tls[fault.option]
        yield problem(f"tls_{fault.option}", fault.message, fault.remedy, value=value, node=node, severity=fault.severity)  # type: ignore[arg-type]
        wrong = wrong or fault.severity == "error"
    if wrong:
        return
    if why := handshake(paths["certificate_file"], paths["key_file"], passphrase, given.authorities, given.names[0]):
        remedy = "Have a certificate issued that servers can use (openssl x509 -noout -text -in FILE shows this one)."
        yield problem("tls_certificate_file", f"Clients would refuse it: {why}.", remedy, value=tls["certificate_file"], node=node)
    elif not is_encrypted(given.key) and paths["key_file"].stat().st_mode & 0o044:
        message = "Other users of this admin host can read the private key."
        yield problem("tls_key_file", message, f"chmod 0600 {paths['key_file']}.", value=tls["key_file"], node=node, severity="warning")


def client_names(tls: Mapping[str, Any], node: str) -> list[str]:
    """By which names clients come to a node, the first being the one that our own checks use."""
    return list(tls["extra_names"]) or [node]

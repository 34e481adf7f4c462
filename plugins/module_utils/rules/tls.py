# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Certificates: lives that fit into each other, names that a certificate can carry, files that clients will accept."""

from __future__ import annotations

import re
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

# By option, the modes that it is for.
MODES = {
    **dict.fromkeys(("certificate_file", "key_file", "key_passphrase"), ("uploaded",)),
    "ca_file": ("uploaded", "acme"),
    **dict.fromkeys(
        ("acme_email", "acme_ca_file", "acme_eab_id", "acme_eab_key", "acme_dns_server", "acme_dns_key_name", "acme_dns_key"), ("acme",)
    ),
}
# What goes into the configuration of certbot as it stands, and how it must look: (form, message, remedy).
ACME_FORMS = {
    "acme_directory": (
        r"https://[^\s/]+(/\S*)?",
        "An ACME directory is an https:// address.",
        "Write it as the authority tells it, for example https://acme-v02.api.letsencrypt.org/directory.",
    ),
    "acme_email": (r"[^\s@,]+@[^\s@,]+\.[^\s@,.]+", "This is no e-mail address.", "Write one such as admin@example.com."),
    "acme_eab_id": (r"[\x21-\x7e]+", "A key identifier has neither spaces nor line ends.", "Copy it from the authority's page."),
    "acme_dns_key_name": (r"[A-Za-z0-9_.-]+", "This is no name of a TSIG key.", "Write it as the name server's configuration has it."),
}
# Never in the public DNS (RFC 2606, 6761, 6762, 8375, ICANN); company authorities may issue for them.
PRIVATE_DOMAINS = ("test", "example", "invalid", "internal", "arpa", "lan", "home", "corp", "intranet", "private", "onion")


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
        if tls["mode"] == "acme":
            yield from _acme(tls, node)
    yield from _twice(declared)


def _together(tls: Mapping[str, Any], node: str) -> Iterator[Problem]:
    """The options of a mode need each other, and mean nothing in the others."""
    for option in ("certificate_file", "key_file"):
        if tls["mode"] == "uploaded" and not tls[option]:
            message = "tls_mode: uploaded needs it."
            yield problem(
                f"tls_{option}", message, f"Name the file on this admin host in tls_{option}, or set tls_mode: private_ca.", node=node
            )
    for option, modes in MODES.items():
        if tls["mode"] not in modes and tls[option]:
            either = " or ".join(modes)
            message = f"This has no effect without tls_mode: {either}."
            yield problem(f"tls_{option}", message, f"Set tls_mode: {either}, or remove this.", node=node, severity="warning")


def _acme(tls: Mapping[str, Any], node: str) -> Iterator[Problem]:
    """What an ACME authority, and the program that speaks to it, would refuse."""
    if not tls["acme_accept_terms"]:
        message = "An authority issues nothing to those who do not agree to its terms of service."
        remedy = "Read them (the directory names them: curl DIRECTORY), and set tls_acme_accept_terms: true; or set another tls_mode."
        yield problem("tls_acme_accept_terms", message, remedy, value=False, node=node)
    for option, (form, message, remedy) in ACME_FORMS.items():
        if tls[option] and not re.fullmatch(form, tls[option]):
            yield problem(f"tls_{option}", message, remedy, value=tls[option], node=node)
    if bool(tls["acme_eab_id"]) != bool(tls["acme_eab_key"]):
        missing = "acme_eab_key" if tls["acme_eab_id"] else "acme_eab_id"
        message = "Of an external account, both the identifier and the key are needed."
        yield problem(f"tls_{missing}", message, "Give both, as the authority has told them, or neither.", node=node)
    if tls["acme_challenge"] == "dns-01":
        for option in ("acme_dns_server", "acme_dns_key_name", "acme_dns_key"):
            if not tls[option]:
                message = "With dns-01, the node has to be let in to the domain's name server."
                yield problem(f"tls_{option}", message, f"Give tls_{option}, or set tls_acme_challenge: http-01.", node=node)
    if tls["acme_dns_server"] and not address_of(tls["acme_dns_server"]):
        message = f"'{tls['acme_dns_server']}' is no address."
        yield problem("tls_acme_dns_server", message, "Give the server's IPv4 or IPv6 address.", value=tls["acme_dns_server"], node=node)
    names = client_names(tls, node)
    for name in names:
        if why := _not_public(name, tls["acme_directory"]):
            remedy = "Name in tls_extra_names how clients find the node in the public DNS, or set tls_mode: private_ca."
            yield problem("tls_extra_names", f"No authority can issue a certificate for {name}: {why}.", remedy, value=name, node=node)
        elif name.startswith("*.") and tls["acme_challenge"] == "http-01":
            remedy = "Set tls_acme_challenge: dns-01, or give the names one by one."
            yield problem("tls_extra_names", f"{name} can't be had by http-01.", remedy, value=name, node=node)


def _not_public(name: str, directory: str) -> str:
    """Why a name can't be certified there; empty where it may."""
    labels = name.lower().split(".")
    if address_of(name):
        return "it is an address"
    if len(labels) < 2:
        return "it is a name without a domain"
    if labels[-1] in ("local", "localhost"):
        return f".{labels[-1]} names are in no DNS"
    if labels[-1] in PRIVATE_DOMAINS and "letsencrypt.org" in directory:
        return f".{labels[-1]} is in no public DNS, and {directory} knows no other"
    return ""


def _twice(declared: Mapping[str, Declared]) -> Iterator[Problem]:
    """By http-01 only the node gets a certificate that the authority finds under its name."""
    seen: dict[str, str] = {}
    for node, roles in declared.items():
        tls = roles["tls"]
        if tls["mode"] == "acme" and tls["acme_challenge"] == "http-01":
            for name in client_names(tls, node):
                if (other := seen.setdefault(name.lower(), node)) != node:
                    message = f"{name} is a name of {other}, too, and by http-01 the authority comes to one of the two only."
                    remedy = "Give each node a name of its own (host_vars), or set tls_acme_challenge: dns-01."
                    yield problem("tls_extra_names", message, remedy, value=name, node=node)


def files(
    declared: Mapping[str, Declared], folders: Mapping[str, Path], passphrases: Mapping[str, str | None], now: datetime.datetime
) -> Iterator[Problem]:
    """What is wrong with uploaded certificates, whose files start in the node's inventory folder; `passphrases` are in clear."""
    for node, roles in declared.items():
        tls = roles["tls"]
        if tls["mode"] == "acme":
            for option in ("acme_ca_file", "ca_file"):
                yield from _authority(tls, option, folders[node], node, now)
        if tls["mode"] == "uploaded" and tls["certificate_file"] and tls["key_file"]:
            yield from _uploaded(tls, folders[node], passphrases.get(node), node, now)


def _authority(tls: Mapping[str, Any], option: str, folder: Path, node: str, now: datetime.datetime) -> Iterator[Problem]:
    if not tls[option]:
        return
    text, why = text_of(folder / Path(tls[option]).expanduser())
    faults = [("error", why, "Name a PEM file that this user can read.")] if text is None else judge_certificates(text, now)
    for severity, message, remedy in faults:
        yield problem(f"tls_{option}", message, remedy, value=tls[option], node=node, severity=severity)  # type: ignore[arg-type]


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
    """By which names clients come to a node, the first being the one that our own checks use; by ACME, addresses are left to the rest."""
    names = list(tls["extra_names"])
    if tls["mode"] == "acme":
        names = [name for name in names if not address_of(name)]
    return names or [node]

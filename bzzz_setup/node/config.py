# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The service's settings: ``config.yaml``, overridden by the environment.

    node:
      name: node1                  # required; lower-case host name
      address: 192.0.2.11          # required; where peers reach this node
      roles: [coordinator, worker] # required; coordinator, worker, storage
      labels: {rack: a}
    cluster:
      name: bzzz                   # required
    listen:
      address: "::"                # every interface, IPv4 and IPv6
      port: 8080                   # REST API, health, metrics, and the status page
      web_port: 8080               # the status page's own port; listened on as well when it differs
      websocket_port: 8081         # events, as WebSocket messages
      mcp_port: 3000               # MCP server, streamable HTTP
    tls:
      certificate: /etc/bzzz/tls/node.crt  # required; also the client certificate shown to etcd
      key: /etc/bzzz/tls/node.key          # required
      ca: /etc/bzzz/tls/ca.crt             # required
      server_certificate: /etc/bzzz/tls/service.crt  # shown to clients, with its chain; when not given, certificate
      server_key: /etc/bzzz/tls/service.key          # its key; when not given, key
      ciphers: ECDHE+AESGCM:ECDHE+CHACHA20           # what TLS 1.2 offers, as OpenSSL writes it; nothing older is spoken
    auth:
      token_sha256: [9f86d0…]      # SHA-256 of each accepted token, hexadecimal; works without etcd
      lockout_failures: 5          # so many wrong passwords in a row lock an account
      lockout_seconds: 900         # for so long
      session_seconds: 43200       # how long a browser stays signed in
    oidc:                          # OpenID Connect; without issuer there is none
      issuer: https://id.example.com/realms/main  # as the provider calls itself
      client_id: bzzz
      client_secret_file: /etc/bzzz/oidc_client_secret  # when not given, a public client: PKCE alone
      ca: /etc/bzzz/oidc-ca.crt    # when not given, the authorities that the system trusts
      scopes: [openid, profile, email]
      groups_claim: groups
      name_claim: preferred_username  # what people are called; when there is none, sub
      title: OpenID Connect        # "Sign in with …"
      role_groups: {admin: [ops]}  # whoever is in such a group has the role
    ldap:                          # LDAP or Active Directory; without urls there is none
      urls: [ldaps://dc1.example.com]  # tried in order; ldap:// is StartTLS, never plain
      bind_dn: cn=bzzz,dc=example,dc=com
      bind_password_file: /etc/bzzz/ldap_bind_password
      ca: /etc/bzzz/ldap-ca.crt
      user_base: ou=people,dc=example,dc=com
      user_filter: (uid={name})
      group_base: ou=groups,dc=example,dc=com
      group_filter: (|(member={dn})(uniqueMember={dn}))
      role_groups: {admin: ["cn=ops,ou=groups,dc=example,dc=com"]}
    ollama:
      token_sha256: [<64 hex digits>]  # who may use this node's Ollama from elsewhere, at /ollama; nobody without
      ports: [11434, 11435]        # where it is looked for, on loopback
    alerting:
      url: https://192.0.2.11:9093 # this node's Alertmanager, which is shown the certificate above; without, nobody is alerted
    etcd:
      endpoints: [https://192.0.2.11:2379]  # none: the cluster is not formed yet
      lease_seconds: 6             # a node not heard of for so long is no member any more
      primary: node1               # preferred primary coordinator
    logging:
      level: info                  # debug, info, warn, error
      format: text                 # text, json
    paths:
      data: /var/lib/bzzz
      log: /var/log/bzzz
      models: /var/lib/bzzz/models
      wizard: /run/bzzz-setup/wizard.sock  # where the wizard listens that /setup hands on to

``BZZZ_<SECTION>_<KEY>`` in the environment overrides a key (lists: ``a,b``; maps: ``a=b,c=d``; an empty value is no
value); ``BZZZ_LOG_LEVEL`` is short for ``BZZZ_LOGGING_LEVEL``. A key that this release does not know is a warning, not
an error: a roll-back must not fail because a newer release wrote the file.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import ipaddress
import json
import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints
from urllib.parse import urlsplit

import yaml

from .auth import principals

ROLES = ("coordinator", "worker", "storage")
LEVELS = ("debug", "info", "warn", "error")
# Sections that other BZZZ releases read from the same file.
_OTHERS = {"hive_api", "agent", "github", "p2p"}


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is wrong with one key, and what to do about it."""

    key: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}. Remedy: {self.remedy}."


class ConfigError(Exception):
    """Every problem of the configuration at once."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class _Wrong(ValueError):
    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message, self.remedy = message, remedy


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _Wrong(f"{value!r} is no text", "write a non-empty text")
    return value.strip()


def _name(value: Any) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?", str(value)):
        raise _Wrong(f"{value!r} is no name", "use lower-case letters, digits, '-' and '.', at most 64")
    return str(value)


def _address(value: Any) -> str:
    try:
        return str(ipaddress.ip_address(str(value)))
    except ValueError:
        raise _Wrong(f"{value!r} is no IP address", "write an IPv4 or IPv6 address, such as 192.0.2.11") from None


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}", str(value)) or not low <= int(value) <= high:
            raise _Wrong(f"{value!r} is no whole number from {low} to {high}", f"write a number from {low} to {high}")
        return int(value)

    return parse


def _choice(*choices: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in choices:
            near = difflib.get_close_matches(str(value), choices, 1)
            raise _Wrong(f"{value!r} is none of {', '.join(choices)}", f"write {near[0] if near else ' or '.join(choices)}")
        return str(value)

    return parse


def _each(parse: Callable[[Any], Any], least: int = 0) -> Callable[[Any], tuple[Any, ...]]:
    def parse_all(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str):
            value = [item.strip() for item in value.split(",") if item.strip()]
        if not isinstance(value, list) or len(value) < least:
            raise _Wrong(f"{value!r} is no list" + (" with an entry" if least else ""), "write a list, such as [a, b]")
        return tuple(dict.fromkeys(parse(item) for item in value))

    return parse_all


def _map(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        value = dict(item.partition("=")[::2] for item in value.split(",") if item.strip())
    if not isinstance(value, dict):
        raise _Wrong(f"{value!r} is no map", "write key: value pairs")
    return {str(key).strip(): str(item).strip() for key, item in value.items()}


def _file(value: Any) -> Path:
    path = _directory(value)
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise _Wrong(f"{path} cannot be read ({error.strerror})", "create it, and let the service's user read it") from None


def _directory(value: Any) -> Path:
    path = Path(_text(value))
    if not path.is_absolute():
        raise _Wrong(f"{value!r} is no absolute path", "write the path from /")
    return path


def _hash(value: Any) -> str:
    # The value may be the token itself, put here by mistake: it is never repeated.
    if not re.fullmatch(r"[0-9a-fA-F]{64}", str(value)):
        raise _Wrong("an entry is no SHA-256 in hexadecimal", 'write the token\'s hash: printf %s "$TOKEN" | sha256sum')
    if str(value).lower() == hashlib.sha256().hexdigest():
        raise _Wrong("an entry is the hash of no token at all", "hash the token itself")
    return str(value).lower()


def _endpoint(value: Any) -> str:
    try:
        parts = urlsplit(str(value))
        if parts.scheme == "https" and parts.hostname and parts.port and parts.path in ("", "/") and not parts.username:
            return f"https://{parts.netloc}"
    except ValueError:
        pass
    raise _Wrong(f"{value!r} is no etcd endpoint", "write https://ADDRESS:PORT, such as https://192.0.2.11:2379")


def _ciphers(value: Any) -> str:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(_text(value))
    except ssl.SSLError:
        raise _Wrong(f"{value!r} names no cipher that OpenSSL knows", "write a list that 'openssl ciphers -v LIST' accepts") from None
    return _text(value)


def _https(value: Any) -> str:
    try:
        parts = urlsplit(str(value))
        _port = parts.port
        if parts.scheme == "https" and parts.hostname and "@" not in parts.netloc and not parts.query and not parts.fragment:
            return str(value)
    except ValueError:
        pass
    raise _Wrong(f"{value!r} is no https:// URL", "write it with its host, such as https://id.example.com")


def _directory_server(value: Any) -> str:
    try:
        parts = urlsplit(str(value))
        _port = parts.port
        if parts.scheme in ("ldaps", "ldap") and parts.hostname and parts.path in ("", "/") and "@" not in parts.netloc:
            return f"{parts.scheme}://{parts.netloc}"
    except ValueError:
        pass
    raise _Wrong(f"{value!r} is no directory server", "write ldaps://HOST or, for StartTLS, ldap://HOST")


def _filter(word: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        text = str(value).strip()
        if not (text.startswith("(") and text.endswith(")") and text.count("(") == text.count(")") and word in text):
            raise _Wrong(f"{value!r} is no filter with {word} in it", f"write one in parentheses, such as (uid={word})")
        return text

    return parse


def _role_groups(value: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise _Wrong(f"{value!r} is no map of roles to groups", "write for example {admin: [ops]}")
    parse, role = _each(_text), _choice(*principals.ROLES)
    # A group's name may have a comma in it.
    return {role(key): parse([groups] if isinstance(groups, str) else groups) for key, groups in value.items()}


def _optional(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else parse(value)


@dataclasses.dataclass(frozen=True)
class Node:
    name: Annotated[str, _name]
    address: Annotated[str, _address]
    roles: Annotated[tuple[str, ...], _each(_choice(*ROLES), least=1)]
    labels: Annotated[dict[str, str], _map] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Cluster:
    name: Annotated[str, _name]


@dataclasses.dataclass(frozen=True)
class Listen:
    address: Annotated[str, _address] = "::"
    port: Annotated[int, _integer(1, 65535)] = 8080
    web_port: Annotated[int, _integer(1, 65535)] = 8080
    websocket_port: Annotated[int, _integer(1, 65535)] = 8081
    mcp_port: Annotated[int, _integer(1, 65535)] = 3000

    def by_port(self) -> dict[int, str]:
        """The key of each port to listen on; the API and the page may share one. Raises ConfigError when others do."""
        keys: dict[int, str] = {}
        problems = []
        for key in ("port", "web_port", "websocket_port", "mcp_port"):
            first = keys.setdefault(number := getattr(self, key), key)
            if first != key and (first, key) != ("port", "web_port"):
                problems.append(Problem(f"listen.{key}", f"{number} is listen.{first}'s too", "give each a port of its own"))
        if problems:
            raise ConfigError(problems)
        return keys


@dataclasses.dataclass(frozen=True)
class Tls:
    certificate: Annotated[Path, _file]
    key: Annotated[Path, _file]
    ca: Annotated[Path, _file]
    server_certificate: Annotated[Path | None, _optional(_file)] = None
    server_key: Annotated[Path | None, _optional(_file)] = None
    ciphers: Annotated[str, _ciphers] = "ECDHE+AESGCM:ECDHE+CHACHA20"

    @property
    def shown(self) -> tuple[Path, Path]:
        """Certificate and key that clients of this service see; etcd is always shown the node's own."""
        return self.server_certificate or self.certificate, self.server_key or self.key


@dataclasses.dataclass(frozen=True)
class Auth:
    token_sha256: Annotated[tuple[str, ...], _each(_hash)] = ()
    lockout_failures: Annotated[int, _integer(1, 1000)] = 5
    lockout_seconds: Annotated[int, _integer(5, 7 * 86400)] = 900
    session_seconds: Annotated[int, _integer(60, 7 * 86400)] = 43200


def _together(section: str, values: Mapping[str, Any]) -> None:
    """Raises ConfigError unless each of these keys has a value."""
    remedy = f"set it, or take the section {section} away"
    if missing := [Problem(f"{section}.{key}", "is missing", remedy) for key, value in values.items() if not value]:
        raise ConfigError(missing)


@dataclasses.dataclass(frozen=True)
class Oidc:
    issuer: Annotated[str | None, _optional(_https)] = None
    client_id: Annotated[str, _text] = ""
    client_secret_file: Annotated[Path | None, _optional(_file)] = None
    ca: Annotated[Path | None, _optional(_file)] = None
    scopes: Annotated[tuple[str, ...], _each(_text)] = ("openid", "profile", "email")
    groups_claim: Annotated[str, _text] = "groups"
    name_claim: Annotated[str, _text] = "preferred_username"
    title: Annotated[str, _text] = "OpenID Connect"
    role_groups: Annotated[dict[str, tuple[str, ...]], _role_groups] = dataclasses.field(default_factory=dict)

    def check(self) -> None:
        if self.issuer:
            _together("oidc", {"client_id": self.client_id, "role_groups": any(self.role_groups.values())})


@dataclasses.dataclass(frozen=True)
class Ldap:
    urls: Annotated[tuple[str, ...], _each(_directory_server)] = ()
    bind_dn: Annotated[str, _text] = ""
    bind_password_file: Annotated[Path | None, _optional(_file)] = None
    ca: Annotated[Path | None, _optional(_file)] = None
    user_base: Annotated[str, _text] = ""
    user_filter: Annotated[str, _filter("{name}")] = "(uid={name})"
    group_base: Annotated[str, _text] = ""
    group_filter: Annotated[str, _filter("{dn}")] = "(|(member={dn})(uniqueMember={dn}))"
    role_groups: Annotated[dict[str, tuple[str, ...]], _role_groups] = dataclasses.field(default_factory=dict)

    def check(self) -> None:
        if self.urls:
            keys = ("bind_dn", "bind_password_file", "user_base", "group_base")
            _together("ldap", {**{key: getattr(self, key) for key in keys}, "role_groups": any(self.role_groups.values())})


@dataclasses.dataclass(frozen=True)
class Ollama:
    """Where this node's Ollama is looked for, and who may use it from elsewhere: nobody without a hash."""

    token_sha256: Annotated[tuple[str, ...], _each(_hash)] = ()
    ports: Annotated[tuple[int, ...], _each(_integer(1, 65535), least=1)] = (11434,)


@dataclasses.dataclass(frozen=True)
class Alerting:
    url: Annotated[str | None, _optional(_https)] = None


@dataclasses.dataclass(frozen=True)
class Etcd:
    endpoints: Annotated[tuple[str, ...], _each(_endpoint)] = ()
    # etcd itself grants no lease shorter than one and a half election time-outs.
    lease_seconds: Annotated[int, _integer(3, 3600)] = 6
    primary: Annotated[str | None, _optional(_name)] = None


@dataclasses.dataclass(frozen=True)
class Logging:
    level: Annotated[str, _choice(*LEVELS)] = "info"
    format: Annotated[str, _choice("text", "json")] = "text"


@dataclasses.dataclass(frozen=True)
class Paths:
    data: Annotated[Path, _directory] = Path("/var/lib/bzzz")
    log: Annotated[Path, _directory] = Path("/var/log/bzzz")
    models: Annotated[Path, _directory] = Path("/var/lib/bzzz/models")
    wizard: Annotated[Path, _directory] = Path("/run/bzzz-setup/wizard.sock")


@dataclasses.dataclass(frozen=True)
class Settings:
    node: Node
    cluster: Cluster
    listen: Listen
    tls: Tls
    auth: Auth
    oidc: Oidc
    ldap: Ldap
    ollama: Ollama
    alerting: Alerting
    etcd: Etcd
    logging: Logging
    paths: Paths
    warnings: tuple[str, ...] = ()

    @property
    def revision(self) -> str:
        """Twelve hexadecimal digits that change with any setting."""
        settings = {name: dataclasses.asdict(getattr(self, name)) for name in SECTIONS}
        return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]


SECTIONS: dict[str, type] = {
    "node": Node,
    "cluster": Cluster,
    "listen": Listen,
    "tls": Tls,
    "auth": Auth,
    "oidc": Oidc,
    "ldap": Ldap,
    "ollama": Ollama,
    "alerting": Alerting,
    "etcd": Etcd,
    "logging": Logging,
    "paths": Paths,
}


def parse(document: Any, environ: Mapping[str, str]) -> Settings:
    """Settings from the file's content and the environment; raises ConfigError with every problem."""
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigError([Problem("config", "the file is no map of sections", "write sections such as 'node:' with keys below")])
    environ = dict(environ)
    if level := environ.pop("BZZZ_LOG_LEVEL", ""):
        environ["BZZZ_LOGGING_LEVEL"] = level
    problems: list[Problem] = []
    sections: dict[str, Any] = {}
    for section in SECTIONS:
        given = document.get(section)
        if not isinstance(given, dict):
            if given is not None:
                problems.append(Problem(section, f"{given!r} is no map", f"write the keys of {section} below it"))
            given = {}
        try:
            sections[section] = parse_section(section, given, environ)
        except ConfigError as wrong:
            problems += wrong.problems
    if problems:
        raise ConfigError(problems)
    settings = Settings(**sections, warnings=_unknown(document))
    settings.listen.by_port()
    settings.oidc.check()
    settings.ldap.check()
    return settings


def parse_section(section: str, given: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
    """One section's settings; raises ConfigError with every problem."""
    cls, problems, values = SECTIONS[section], [], {}
    parsers = {key: hint.__metadata__[0] for key, hint in get_type_hints(cls, include_extras=True).items()}
    for field in dataclasses.fields(cls):
        name = f"BZZZ_{section}_{field.name}".upper()
        raw = environ.get(name) or given.get(field.name)
        if raw is None:
            if field.default is field.default_factory is dataclasses.MISSING:
                problems.append(Problem(f"{section}.{field.name}", "is missing", f"set it in the file, or {name} in the environment"))
            continue
        try:
            values[field.name] = parsers[field.name](raw)
        except _Wrong as wrong:
            problems.append(Problem(f"{section}.{field.name}", wrong.message, wrong.remedy))
    if problems:
        raise ConfigError(problems)
    return cls(**values)


def _unknown(document: dict[str, Any]) -> tuple[str, ...]:
    known = {section: [field.name for field in dataclasses.fields(cls)] for section, cls in SECTIONS.items()}
    keys = {f"{section}.{key}" for section in known for key in document.get(section) or {}} | {str(s) for s in document if s not in known}
    right = {f"{section}.{key}" for section, names in known.items() for key in names}
    warnings = []
    for key in sorted(keys - right - _OTHERS):
        near = difflib.get_close_matches(key, right | set(known), 1)
        warnings.append(f"{key} is not known to this release and has no effect" + (f"; did you mean {near[0]}?" if near else ""))
    return tuple(warnings)


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read a configuration file; raises ConfigError naming each key and its remedy."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(str(path), f"cannot be read ({error})", "create it, and let the service's user read it")]) from None
    except yaml.YAMLError as error:
        # The parser's own message quotes the file; its position is enough and repeats no secret.
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError([Problem(str(path), f"is no valid YAML{where}", "correct the syntax there")]) from None
    return parse(document, environ)

# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Least and greatest values of numbers. The JSON Schema of the forms says the same."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Optional, Union

from ..problems import Problem, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..cluster import Cluster
    from ..declaration import Declared

    # Least, greatest (None: any), and why: of both, or of each.
    Limits = tuple[float, Optional[float], Union[str, tuple[str, str]]]

NOTHING = "there is no less than nothing"
KEPT = ("without the release before there is no way back", "each takes room on the disk")
LIFE = ("nothing is valid for less than a day", "longer lives overflow the calendars of some programs")
# By role and option.
RANGES: dict[tuple[str, str], Limits] = {
    ("alerting", "repeat_hours"): (1, 1000, "an hour is soon enough, and what was told is forgotten after some weeks"),
    ("coordination", "lease_seconds"): (3, 300, "a shorter lease is lost to a short pause, a longer one hides a lost node"),
    ("detection", "cpu_min"): (1, None, "a node has at least one thread"),
    ("detection", "memory_min_mib"): (0, None, NOTHING),
    ("detection", "tool_timeout_seconds"): (1, 120, "a tool needs some time, and detection must end"),
    ("firewall", "revert_seconds"): (20, 3600, "a new connection may take 15 seconds, and a locked-out operator should not wait for long"),
    ("gateway", "max_tokens"): (1, 10_000_000, ("an answer has a token at least", "no model gives a longer answer")),
    ("gateway", "releases_kept"): (2, 100, KEPT),
    ("models", "ram_reserve_mib"): (0, None, NOTHING),
    ("models", "update_jitter_minutes"): (0, 7 * 1440, (NOTHING, "a later one would meet the next")),
    ("models", "vram_reserve_mib"): (0, None, NOTHING),
    ("network", "clock_offset_max_seconds"): (
        0.01,
        3600,
        ("clocks are not compared more exactly", "an hour is no inaccuracy"),
    ),
    ("network", "latency_max_ms"): (0.1, 60000, ("no network is faster", "a network that needs a minute is none")),
    ("network", "loss_max_percent"): (0, 100, (NOTHING, "there is no more than all")),
    ("ollama", "context_length"): (0, None, "0 is Ollama's own choice"),
    ("ollama", "gpu_check_seconds"): (0, 3600, "0 is never, and a GPU that fails is to be taken out before long"),
    ("ollama", "gpu_overhead_mib"): (0, None, NOTHING),
    ("ollama", "max_loaded_models"): (0, None, "0 is Ollama's own choice"),
    ("ollama", "max_queue"): (1, None, "a request waits for a moment at least"),
    ("ollama", "memory_max_mib"): (0, None, "0 is no limit"),
    ("ollama", "num_parallel"): (0, None, "0 is Ollama's own choice"),
    ("ollama", "releases_kept"): (2, 100, KEPT),
    ("ollama", "start_timeout_seconds"): (5, 600, "a start takes seconds, and one that fails must end"),
    ("resources", "coordination_memory_max_mib"): (128, None, "etcd does not start with less"),
    ("resources", "cpu_quota_percent"): (0, None, "0 is no limit"),
    ("resources", "cpu_weight"): (1, 10000, "systemd knows no other weights"),
    ("resources", "disk_free_min_mib"): (0, None, NOTHING),
    ("resources", "memory_max_mib"): (0, None, "0 is no limit"),
    ("resources", "service_cpu_quota_percent"): (0, None, "0 is no limit"),
    ("resources", "service_memory_max_mib"): (128, None, "the node service does not start with less"),
    ("service", "lockout_failures"): (1, 1000, "a lock-out needs a failure, and many are guesses"),
    ("service", "lockout_seconds"): (5, 7 * 86400, ("a shorter one stops no guessing", "a lock-out must end")),
    ("service", "session_seconds"): (60, 7 * 86400, ("nobody gets anything done in less", "a browser is not to stay signed in for ever")),
    ("service", "releases_kept"): (2, 100, KEPT),
    ("tls", "acme_dns_wait_seconds"): (0, 3600, (NOTHING, "name servers that need longer make authorities give up")),
    ("tls", "ca_valid_days"): (1, 36500, LIFE),
    ("tls", "leaf_valid_days"): (1, 36500, LIFE),
    ("tls", "renew_before_days"): (0, None, "0 renews only what has expired"),
    ("validation", "disk_min_mib_per_second"): (0, None, "0 only measures"),
    ("validation", "service_latency_max_ms"): (0, None, "0 only measures"),
    ("validation", "gateway_latency_max_ms"): (0, None, "0 only measures"),
    ("validation", "network_min_mib_per_second"): (0, None, "0 does not measure it"),
    ("validation", "model_min_tokens_per_second"): (0, None, "0 does not measure it"),
}
# (role, option) of a secret -> fewest characters, why
LENGTHS: dict[tuple[str, str], tuple[int, str]] = {
    ("service", "token"): (32, "its hash is on every node and in diffs, where a short one could be found by trying"),
}
# (role, option) of a secret -> what it must look like, in words, and a remedy
FORMS: dict[tuple[str, str], tuple[re.Pattern[str], str, str]] = {
    **dict.fromkeys(
        (("auth", "oidc_client_secret"), ("auth", "ldap_bind_password")),
        (re.compile(r"[^\x00-\x1f]+"), "one line of text", "Write it in quotes, without an end of line, into the vault file."),
    ),
    ("alerting", "smtp_password"): (re.compile(r"[^\x00-\x1f]+"), "one line of text", "Write it in one line."),
    ("alerting", "webhook_token"): (
        re.compile(r"[!-~]+"),
        "a bearer token",
        "Write it without white space, in ASCII.",
    ),
    ("alerting", "slack_url"): (
        re.compile(r"https?://[!-?A-~]+"),
        "an incoming webhook's URL",
        "Write it as Slack shows it, such as https://hooks.slack.com/services/….",
    ),
    ("cost", "database_url"): (
        re.compile(r"postgres(ql)?(\+psycopg)?://[!-~]*@[!-?A-~]+/[!-~]+"),
        "a PostgreSQL's URL",
        "Write it as postgresql://user:password@host:5432/name, other letters than URLs have as %20 and so on, into the vault file.",
    ),
    **dict.fromkeys(
        (("openai", "api_key"), ("openai", "admin_key")),
        (re.compile(r"[!-~]{8,}"), "a key of OpenAI's", "Write it as OpenAI shows it, such as sk-proj-…, into the vault file."),
    ),
    ("downloads", "proxy_credentials"): (
        re.compile(r"[!-9;-~]+:[!-~]+"),  # programs differ in how they send other letters
        "user:password, in ASCII and without white space",
        'Write for example "builder:secret", in quotes; a user with a colon is not possible.',
    ),
}
PORT = (1, 65535, "no other ports exist")


def is_port(option: str) -> bool:
    """Whether an option (without its role's prefix) is a port by its name."""
    return option == "port" or option.endswith("_port")


def limits(role: str, option: str) -> Limits | None:
    """Least, greatest, and why; None where any number will do."""
    return PORT if is_port(option) else RANGES.get((role, option))


def unfit(role: str, option: str, secret: str, node: str) -> Problem | None:
    """What is wrong with a secret that could be guessed, or cannot be used. A rule of its own: `declared` has no secrets to judge."""
    if (role, option) in FORMS:
        form, words, remedy = FORMS[role, option]
        return None if form.fullmatch(secret) else problem(f"{role}_{option}", f"It is not {words}.", remedy, node=node)
    least, why = LENGTHS.get((role, option), (0, ""))
    if len(secret.strip()) >= least:
        return None
    message = f"It has fewer than {least} characters: {why}."
    remedy = f"Put a longer one into the vault file, for example from: openssl rand -hex {least}. Without {role}_{option} one is generated."
    return problem(f"{role}_{option}", message, remedy, node=node)


def literal(declared: Mapping[str, Declared], cluster: Cluster) -> Iterator[Problem]:
    """Numbers outside of their limits."""
    for node, roles in declared.items():
        for role, options in roles.items():
            for option, value in options.items():
                bounds = limits(role, option)
                if bounds and isinstance(value, (int, float)) and not isinstance(value, bool):
                    yield from _outside(f"{role}_{option}", value, bounds, node)


def _outside(option: str, value: Any, bounds: Limits, node: str) -> Iterator[Problem]:
    least, greatest, why = bounds
    too_small, too_great = (why, why) if isinstance(why, str) else why
    if value < least:
        yield problem(option, f"This must be at least {least:g}: {too_small}.", f"Set it to {least:g} or more.", value=value, node=node)
    elif greatest is not None and value > greatest:
        yield problem(option, f"This can be {greatest:g} at most: {too_great}.", f"Set it to {greatest:g} or less.", value=value, node=node)

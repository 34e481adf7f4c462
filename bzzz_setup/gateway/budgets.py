# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Limits of users, projects and all, by day and month: pure rules. Money is whole nano-USD, a thousand millionth of a dollar."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

NANO = 10**9
DAY, MONTH = "day", "month"
PERIODS = (DAY, MONTH)
ALL, PROJECT, USER, MEMBER = "all", "project", "user", "member"
# What every project or user has that is not named.
EVERY = "*"
HIGHEST_USD = 10**9


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is wrong with an option, and what to do."""

    option: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.option}: {self.message}. Remedy: {self.remedy}"


class Invalid(Exception):
    """Every problem of what was asked for."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


@dataclasses.dataclass(frozen=True)
class Period:
    """From ``start`` to before ``end``, both UTC."""

    kind: str
    start: datetime
    end: datetime

    @functools.cached_property
    def start_ms(self) -> int:
        return milliseconds(self.start)


@dataclasses.dataclass(frozen=True)
class Scope:
    """Whose money: kind is all (no name), project, user, or member (a user within a project, ``project/user``)."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        if self.kind == MEMBER:
            project, _, user = self.name.partition("/")
            return f"user {user} in project {project}"
        return "the whole cluster" if self.kind == ALL else f"{self.kind} {self.name}"


@dataclasses.dataclass(frozen=True)
class Limit:
    """What a scope may spend in each period of a kind."""

    scope: Scope
    period: str
    nano: int


def milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def nano(usd: Decimal | float | str) -> int:
    """Dollars as nano-USD, rounded up: a thing that costs something never costs nothing."""
    exact = Decimal(str(usd)) * NANO
    # What floats add below a thousandth of a nano is noise.
    whole = int(exact.quantize(Decimal("0.001")).to_integral_value(rounding="ROUND_CEILING"))
    return max(0, whole)


def dollars(amount: int) -> str:
    """As people read it: cents, and more digits for less than ten cents."""
    places = 2 if abs(amount) >= NANO // 10 or amount == 0 else 6
    return f"{Decimal(amount) / NANO:.{places}f} USD"


# --- periods ---


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of a day, UTC. Where clocks jump over midnight, that of the jump."""
    early, late = (datetime(day.year, day.month, day.day, tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if early <= late:
        return early  # the first of two, where clocks are put back over it
    # In a gap: somewhere between the two the clock jumps to this day.
    while early - late > timedelta(seconds=1):
        middle = late + (early - late) // 2
        if middle.astimezone(zone).date() >= day:
            early = middle
        else:
            late = middle
    return early.replace(microsecond=0)


def _next(first: date, kind: str) -> date:
    return first + timedelta(days=1) if kind == DAY else (first.replace(day=1) + timedelta(days=32)).replace(day=1)


def period_of(moment: datetime, kind: str, zone: ZoneInfo) -> Period:
    """The day or month that a moment belongs to, as clocks in the zone show it. Days have 23 to 25 hours, or what a country decides."""
    day = moment.astimezone(zone).date()
    first = day if kind == DAY else day.replace(day=1)
    # A clock put back over midnight shows yesterday's date for a while of today.
    while moment >= (end := _midnight(_next(first, kind), zone)):
        first = _next(first, kind)
    return Period(kind, _midnight(first, zone), end)


# --- budgets ---


@dataclasses.dataclass(frozen=True)
class Budgets:
    """``limits``: by scope and kind of period; those of the name ``*`` are for each scope of a kind that has none of its own."""

    limits: Mapping[tuple[Scope, str], int]
    zone: ZoneInfo
    warn_percent: tuple[int, ...] = ()

    def of(self, user: str, project: str) -> Iterator[Limit]:
        """Every limit that a call by this user for this project is held to."""
        for scope in scopes_of(user, project):
            for period in PERIODS:
                if (amount := self.amount(scope, period)) is not None:
                    yield Limit(scope, period, amount)

    def amount(self, scope: Scope, period: str) -> int | None:
        """The limit of a scope, its own or that of every one of its kind; None for none."""
        own = self.limits.get((scope, period))
        if own is not None or scope.kind == ALL:
            return own
        if scope.kind != MEMBER:
            return self.limits.get((Scope(scope.kind, EVERY), period))
        project, _, user = scope.name.partition("/")
        # A project that is named has shares of its own, or none.
        of = project if (Scope(PROJECT, project), period) in self.limits else EVERY
        found = (self.limits.get((Scope(MEMBER, f"{of}/{each}"), period)) for each in (user, EVERY))
        return next((each for each in found if each is not None), None)

    def reached(self, limit: Limit, spent: int) -> list[int]:
        """The thresholds, in percent, that spending has reached."""
        return [percent for percent in self.warn_percent if spent and percent * limit.nano <= spent * 100]


def scopes_of(user: str, project: str) -> list[Scope]:
    """Whose money a call is."""
    scopes = [Scope(ALL), Scope(USER, user)]
    return [*scopes, Scope(PROJECT, project), Scope(MEMBER, f"{project}/{user}")] if project else scopes


def refusal(limit: Limit, used: int, estimate: int, resets: datetime, zone: ZoneInfo) -> str:
    """What the client of a refused call is told."""
    local = resets.astimezone(zone)
    return (
        f"The {'daily' if limit.period == DAY else 'monthly'} limit of {limit.scope} is {dollars(limit.nano)}: {dollars(used)} are "
        f"spent or reserved, and this call may cost up to {dollars(estimate)}. The limit is reset at {local:%Y-%m-%d %H:%M:%S %z} "
        f"({zone.key}). Until then, use a cheaper or local model or a lower max_tokens, or ask an administrator for a higher limit."
    )


# --- the file ---


class _Reader:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.limits: dict[tuple[Scope, str], int] = {}

    def mapping(self, option: str, value: Any, known: tuple[str, ...] | None = None) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(key, str) and key for key in value):
            self.problems.append(Problem(option, "this is no mapping of names", "write name: value, one a line"))
            return {}
        for key in value:
            if known and key not in known:
                self.problems.append(Problem(f"{option}.{key}", "there is no such option", f"write some of {', '.join(known)}"))
        return value

    def usd(self, option: str, value: Any) -> int | None:
        try:
            amount = Decimal(str(value)) if not isinstance(value, bool) else Decimal("nan")
            if amount.is_finite() and 0 <= amount <= HIGHEST_USD:
                return int(amount * NANO)
        except InvalidOperation:
            pass
        self.problems.append(Problem(option, "this is no amount", f"write dollars, 0 to {HIGHEST_USD}, such as 12.50"))
        return None

    def amounts(self, option: str, value: dict[str, Any], scope: Scope) -> None:
        for period in PERIODS:
            name = f"{period}_usd"
            if value.get(name) is not None and (amount := self.usd(f"{option}.{name}", value[name])) is not None:
                self.limits[scope, period] = amount

    def shares(self, option: str, value: Any, of: Scope, kind: str) -> None:
        """Parts of one budget in percent: a limit each, together no more than the whole."""
        total = Decimal(0)
        for name, share in self.mapping(option, value).items():
            try:
                percent = Decimal(str(share)) if not isinstance(share, bool) else Decimal("nan")
            except InvalidOperation:
                percent = Decimal("nan")
            if not percent.is_finite() or not 0 <= percent <= 100:
                self.problems.append(Problem(f"{option}.{name}", "this is no share", "write percent, 0 to 100"))
                continue
            total += percent
            scope = Scope(kind, f"{of.name}/{name}" if kind == MEMBER else name)
            for period in PERIODS:
                if (whole := self.limits.get((of, period))) is not None:
                    part = int(whole * percent / 100)
                    self.limits[scope, period] = min(part, self.limits.get((scope, period), part))
        if total > 100:
            self.problems.append(Problem(option, f"the shares sum to {total} percent", "lower some: together they may have 100 at most"))
        if value and not any((of, period) in self.limits for period in PERIODS):
            self.problems.append(Problem(option, f"{of} has no limit to share", "set its day_usd or month_usd"))


_AMOUNTS = ("day_usd", "month_usd")


def load(document: Any, time_zone: Any = "UTC", option: str = "budgets") -> Budgets:
    """Budgets as the gateway's file has them (docs/cost.md); raises Invalid with every problem."""
    reader = _Reader()
    top = reader.mapping(option, document, ("all", "projects", "users", "warn_percent"))
    everyone = reader.mapping(f"{option}.all", top.get("all"), (*_AMOUNTS, "project_shares", "user_shares"))
    reader.amounts(f"{option}.all", everyone, Scope(ALL))
    for kind, plural in ((PROJECT, "projects"), (USER, "users")):
        known = (*_AMOUNTS, "user_shares") if kind == PROJECT else _AMOUNTS
        for name, value in reader.mapping(f"{option}.{plural}", top.get(plural)).items():
            path = f"{option}.{plural}.{name}"
            reader.amounts(path, reader.mapping(path, value, known), Scope(kind, name))
    # Shares of the whole first: what a project has by its share is shared among its users.
    reader.shares(f"{option}.all.project_shares", everyone.get("project_shares"), Scope(ALL), PROJECT)
    reader.shares(f"{option}.all.user_shares", everyone.get("user_shares"), Scope(ALL), USER)
    projects = top.get("projects")
    for name, value in (projects if isinstance(projects, dict) else {}).items():
        if isinstance(value, dict) and value.get("user_shares") is not None:
            reader.shares(f"{option}.projects.{name}.user_shares", value["user_shares"], Scope(PROJECT, name), MEMBER)
    percents = top.get("warn_percent", [])
    whole = isinstance(percents, list) and all(type(each) is int and 1 <= each <= 100 for each in percents)
    if not whole:
        reader.problems.append(
            Problem(f"{option}.warn_percent", "these are no thresholds", "write whole percents in a list, such as [50, 80]")
        )
    try:
        zone = ZoneInfo(time_zone)
    except (ValueError, TypeError, OSError, KeyError, AttributeError):
        reader.problems.append(Problem("time_zone", "there is no such time zone", "write one of IANA's names, such as Europe/Berlin"))
    if reader.problems:
        raise Invalid(*reader.problems)
    return Budgets(reader.limits, zone, tuple(sorted(set(percents))))

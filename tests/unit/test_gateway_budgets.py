# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Periods, limits, shares, thresholds and the gateway's file: rules by themselves."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bzzz_setup.gateway import budgets, settings
from bzzz_setup.gateway.budgets import ALL, DAY, EVERY, MEMBER, MONTH, NANO, PROJECT, USER, Invalid, Limit, Scope, load, period_of

# Ordinary turns, turns at midnight, half hours, a day that never was, and none.
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Santiago",
    "America/Havana",
    "America/St_Johns",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Tehran",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kiritimati",
]
moments = st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))


@pytest.mark.requirement("4.2.2", part="periods")
@given(moments, st.sampled_from(ZONES), st.sampled_from([DAY, MONTH]))
def test_periods_follow_each_other_without_gap_or_overlap(moment: datetime, name: str, kind: str) -> None:
    zone = ZoneInfo(name)
    period = period_of(moment, kind, zone)
    assert period.start <= moment < period.end
    assert period_of(period.start, kind, zone) == period == period_of(period.end - timedelta(microseconds=1), kind, zone)
    after = period_of(period.end, kind, zone)
    assert after.start == period.end
    local = period.start.astimezone(zone)
    assert (period.start - timedelta(seconds=1)).astimezone(zone).date() < local.date(), "a period starts with a date's first second"
    if kind == MONTH:
        assert local.day == 1 and timedelta(days=27.9) < period.end - period.start < timedelta(days=31.1)


@pytest.mark.requirement("4.2.2", part="turns of clocks")
@pytest.mark.parametrize(
    ("zone", "moment", "hours"),
    [
        ("Europe/Berlin", "2026-03-29T12:00+00:00", 23),
        ("Europe/Berlin", "2026-10-25T12:00+00:00", 25),
        ("Europe/Berlin", "2026-10-25T00:30+00:00", 25),
        ("America/Havana", "2026-11-01T12:00+00:00", 25),  # one o'clock is midnight again
        ("Africa/Cairo", "2026-04-24T12:00+00:00", 23),  # there is no midnight
        ("Australia/Lord_Howe", "2026-04-05T03:00+00:00", 24.5),
        ("America/St_Johns", "2010-11-07T02:45+00:00", 25),  # a quarter past eleven again, a minute after midnight
        ("America/Toronto", "1919-03-31T12:00+00:00", 23.5),  # from half past eleven to half past midnight
        ("Pacific/Apia", "2011-12-30T09:00+00:00", 24),  # the day before the one that never was
    ],
)
def test_days_are_as_long_as_clocks_say(zone: str, moment: str, hours: float) -> None:
    period = period_of(datetime.fromisoformat(moment), DAY, ZoneInfo(zone))
    assert (period.end - period.start) == timedelta(hours=hours)


@given(st.integers(0, 10**16))
def test_amounts_keep_their_value(amount: int) -> None:
    assert budgets.nano(Decimal(amount) / NANO) == amount
    assert budgets.nano(1.5e-7) == 150 and budgets.nano(0.1 + 0.2) == 3 * NANO // 10 and budgets.nano(1e-10) == 1


@pytest.mark.requirement("4.2.1", part="shares")
@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 100), max_size=6), st.integers(0, 10**6))
def test_shares_never_have_more_than_the_whole(shares: dict[str, int], usd: int) -> None:
    document = {"all": {"month_usd": usd, "project_shares": shares}}
    if sum(shares.values()) > 100:
        with pytest.raises(Invalid, match="the shares sum to"):
            load(document)
        return
    read = load(document)
    parts = [read.amount(Scope(PROJECT, name), MONTH) or 0 for name in shares]
    assert sum(parts) <= usd * NANO and (sum(shares.values()) < 100 or sum(parts) == usd * NANO)


@pytest.mark.requirement("4.2.1", part="shares within a project")
def test_a_projects_share_is_shared_among_its_users() -> None:
    read = load(
        {
            "all": {"day_usd": 10, "month_usd": 100, "project_shares": {"search": 60}, "user_shares": {"bert": 5}},
            "projects": {"search": {"day_usd": 2, "user_shares": {"anna": 25}}, "*": {"day_usd": 1}},
            "users": {"*": {"day_usd": "0.50"}},
            "warn_percent": [80, 50],
        },
        "Europe/Berlin",
    )
    limits = {(each.scope.kind, each.scope.name, each.period): each.nano / NANO for each in read.of("anna", "search")}
    assert limits == {
        (ALL, "", DAY): 10,
        (ALL, "", MONTH): 100,
        (USER, "anna", DAY): 0.5,
        (PROJECT, "search", DAY): 2,  # its own is less than its share of 6
        (PROJECT, "search", MONTH): 60,
        (MEMBER, "search/anna", DAY): 0.5,
        (MEMBER, "search/anna", MONTH): 15,
    }
    assert read.amount(Scope(USER, "bert"), DAY) == NANO // 2 and read.amount(Scope(USER, "bert"), MONTH) == 5 * NANO
    assert {each.scope.kind for each in read.of("carl", "")} == {ALL, USER}
    assert read.warn_percent == (50, 80)


@pytest.mark.requirement("4.2.1", part="shares for whoever is not named")
def test_shares_are_also_of_those_who_are_not_named() -> None:
    read = load(
        {
            "projects": {
                "search": {"day_usd": 10, "user_shares": {"anna": 50, EVERY: 20}},
                "web": {"day_usd": 10},
                EVERY: {"day_usd": 5, "user_shares": {"anna": 10, EVERY: 2}},
            }
        }
    )
    shares = {
        (project, user): (read.amount(Scope(MEMBER, f"{project}/{user}"), DAY) or 0) / NANO
        for project in ("search", "web", "other")
        for user in ("anna", "bert")
    }
    assert shares == {
        ("search", "anna"): 5,
        ("search", "bert"): 2,
        ("web", "anna"): 0,  # it is named, and has no shares
        ("web", "bert"): 0,
        ("other", "anna"): 0.5,
        ("other", "bert"): 0.1,
    }
    assert (MEMBER, "other/bert") in {(each.scope.kind, each.scope.name) for each in read.of("bert", "other")}


@pytest.mark.requirement("4.1.4", part="thresholds")
@given(st.lists(st.integers(1, 10**9), max_size=20), st.integers(1, 10**10))
def test_thresholds_are_reached_in_their_order(costs: list[int], amount: int) -> None:
    read = load({"warn_percent": [1, 50, 100]})
    limit, spent, seen = Limit(Scope(ALL), DAY, amount), 0, list[int]()
    assert read.reached(limit, 0) == []
    for cost in costs:
        spent += cost
        assert read.reached(limit, spent)[: len(seen)] == seen
        seen = read.reached(limit, spent)
    assert seen == [percent for percent in (1, 50, 100) if spent and spent * 100 >= percent * amount]


@pytest.mark.requirement("4.1.1", part="what a refusal tells")
def test_a_refusal_tells_whose_limit_how_much_and_until_when() -> None:
    zone = ZoneInfo("Europe/Berlin")
    resets = period_of(datetime(2026, 3, 28, 12, tzinfo=UTC), DAY, zone).end
    text = budgets.refusal(Limit(Scope(USER, "anna"), DAY, 5 * NANO), 4_990_000_000, 12_000_000, resets, zone)
    assert "daily limit of user anna is 5.00 USD" in text and "4.99 USD" in text and "0.012000 USD" in text
    assert "2026-03-29 00:00:00 +0100 (Europe/Berlin)" in text


@pytest.mark.parametrize(
    ("document", "option"),
    [
        ({"all": {"day_usd": -1}}, "budgets.all.day_usd"),
        ({"all": {"day_usd": True}}, "budgets.all.day_usd"),
        ({"all": {"day_usd": float("nan")}}, "budgets.all.day_usd"),
        ({"users": {"anna": {"daily": 1}}}, "budgets.users.anna.daily"),
        ({"user": {}}, "budgets.user"),
        ({"all": {"project_shares": {"a": 10}}}, "budgets.all.project_shares"),
        ({"all": {"day_usd": 1, "user_shares": {"a": "x"}}}, "budgets.all.user_shares.a"),
        ({"projects": {"search": {"user_shares": {"anna": 10}}}}, "budgets.projects.search.user_shares"),
        ({"warn_percent": [0]}, "budgets.warn_percent"),
        (["all"], "budgets"),
    ],
)
def test_bad_budgets_are_named(document: Any, option: str) -> None:
    with pytest.raises(Invalid) as told:
        load(document)
    assert option in [problem.option for problem in told.value.problems]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_option = st.sampled_from([*settings.KNOWN, "all", "users", "projects", "file"])


@given(st.dictionaries(_option, _json | st.dictionaries(_option, _json, max_size=3), max_size=8) | _json)
def test_any_document_is_settings_or_problems(document: Any) -> None:
    try:
        settings.parse(document)
    except Invalid as invalid:
        assert invalid.problems and all(problem.remedy for problem in invalid.problems)


def test_the_gateways_file_is_read(tmp_path: Path) -> None:
    url = tmp_path / "url"
    url.write_text("postgresql+psycopg://gateway:secret@db/ledger\n")
    file = tmp_path / "gateway.yaml"
    content = {
        "ledger_file": str(url),
        "tokens": {"file": str(tmp_path / "tokens")},
        "metrics": {"port": 9100},
        "tasks": {"coding": "gpt-5"},
    }
    file.write_text(json.dumps(content))
    read = settings.read(file)
    assert read.ledger == "postgresql+psycopg://gateway:secret@db/ledger" and read.metrics == settings.Metrics(9100)
    with pytest.raises(Invalid, match=r"none.yaml: No such file or directory"):
        settings.read(tmp_path / "none.yaml")

# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A gateway's ledger with some days of calls in it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from bzzz_setup.gateway.budgets import load
from bzzz_setup.gateway.ledger import Call, Ledger, Outcome

DAYS = 12
MODELS = ("gpt-5", "gpt-5-mini", "llama3.2:3b", "text-embedding-3-small", "qwen3:8b", "gpt-4o", "phi4")


def made(folder: Path) -> Ledger:
    """Each model once a day, the first for most, of two users and tasks; the budget of all is nearly spent."""
    now = [0.0]
    ledger = Ledger(f"sqlite:///{folder}/ledger.sqlite", load({"all": {"month_usd": 5}}, "Europe/Berlin"), "n1", now=lambda: now[0])
    now[0] = datetime(2026, 11, 1, 9, tzinfo=UTC).timestamp()
    ledger.start()
    for day in range(DAYS):
        for place, model in enumerate(MODELS):
            cost = 150_000_000 // (place + 1 + (day * 3 + place) % 4)
            call = Call(f"{day}-{model}", ("anna", "bert")[place % 2], "search", ("coding", "review")[day % 2], model, cost)
            with ledger.transaction() as connection:
                assert ledger.reserve(connection, call) is None
                ledger.settle(connection, call, Outcome(cost, 900, 300, 80, 1200, provider="openai", deployment=model))
        now[0] += 86_400
    return ledger

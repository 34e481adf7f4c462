# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import os

import pytest
from hypothesis import settings

pytest_plugins = ["requirements_plugin", "pytester"]

# Other work on the machine must not make a property fail; a failure in CI is the same for everybody.
settings.register_profile("bzzz", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("bzzz")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also run tests marked slow")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: runs only with --all")
    config.addinivalue_line("markers", "beside: runs on three other nodes than the rest, beside it")
    config.addinivalue_line("markers", "alone: makes the lab nodes that it runs on, and may run at any time")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = [item for item in items if item.get_closest_marker("slow")]
    for item in slow:
        item.add_marker(pytest.mark.timeout(3600))
    if not config.getoption("--all"):
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]

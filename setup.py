# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Builds the wizard's page into the wheel. Everything else is in pyproject.toml."""

from __future__ import annotations

import contextlib
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


@contextlib.contextmanager
def _part(what: str) -> Iterator[None]:
    print(f"{what}…", flush=True)
    yield


class WithPage(build_py):
    """In a checkout that Python uses as it is, `bzzz-setup web` builds the page when it is wanted."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # earlier pages' parts have other names
            runpy.run_path(str(Path(__file__).resolve().parent / "bzzz_setup/web/frontend.py"))["built"](_part)
        super().run()


setup(cmdclass={"build_py": WithPage})

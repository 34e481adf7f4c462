# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report as one HTML page that needs nothing else: no network, no program but a browser, no JavaScript."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bzzz_setup.report import Report
from bzzz_setup.reports.view import view

# What HTML forbids, or what would let a text look other than it is: control characters, marks that turn the direction of writing.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")


def html(report: Report) -> str:
    """The page. Every text from outside is escaped by the template engine; styles and script are the package's own."""
    return str(_template("report.html.j2").render(view(report)))


def charts(told: dict[str, Any]) -> str:
    """A page of charts and tables (bzzz_setup/reports/figures.py)."""
    return str(_template("figures.html.j2").render(told))


@functools.cache
def _template(name: str) -> Any:
    environment = Environment(
        loader=PackageLoader("bzzz_setup.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    files = resources.files("bzzz_setup.reports") / "templates"
    for part in ("style", "script"):
        text = (files / {"style": "report.css", "script": "report.js"}[part]).read_text(encoding="utf-8")
        # A program of ours, not a text: escaped it would be another.
        environment.globals[part] = Markup(text)  # noqa: S704
        environment.globals[f"{part}_hash"] = "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return environment.get_template(name)


def _shown(value: Any) -> Any:
    return _UNSEEN.sub("\ufffd", value) if isinstance(value, str) and not isinstance(value, Markup) and _UNSEEN.search(value) else value

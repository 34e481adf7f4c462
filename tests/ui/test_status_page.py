# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The status page of a running cluster in a browser: sign in, see every node, and see what happens without loading again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from node_cluster import TOKEN, Cluster, Node, etcd_program

from bzzz_setup import release

WIDTHS = (375, 820, 1440)
NAMES = ("node1", "node2", "node3")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Node]]:
    with contextlib.closing(Cluster(tmp_path_factory.mktemp("cluster"), release.build(), etcd=etcd_program())) as made:
        made.form(*NAMES)
        yield made.nodes


@contextlib.contextmanager
def opened(browser: Any, node: Node, width: int = 1440, **options: Any) -> Iterator[Any]:
    """The node's page; it may complain of nothing and ask nobody else for anything."""
    context = browser.new_context(viewport={"width": width, "height": 900}, ignore_https_errors=True, **options)
    page = context.new_page()
    wrong: list[str] = []
    own = f"https://127.0.0.1:{node.port}/"
    page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith((own, "data:")) else None)
    page.on("console", lambda message: wrong.append(message.text) if "401" not in message.text else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(own)
    yield page
    context.close()
    assert not wrong


def sign_in(page: Any, token: str = TOKEN) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()


def stands_in_nobodys_way(page: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert not found, "\n".join(f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:300]}" for one in found)
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide == 0, f"the page itself scrolls sideways by {wide} px"


@pytest.mark.requirement("1.2.3", part="the page in a browser")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_stands_in_anybodys_way(browser: Any, nodes: dict[str, Node], scheme: str, width: int) -> None:
    with opened(browser, nodes["node1"], width, color_scheme=scheme, bypass_csp=True) as page:
        stands_in_nobodys_way(page)
        sign_in(page, "not-the-token-of-this-cluster-at-all")
        assert "token" in page.get_by_role("alert").inner_text()
        stands_in_nobodys_way(page)
        sign_in(page)
        page.get_by_role("heading", name="node3").wait_for()
        stands_in_nobodys_way(page)


@pytest.mark.requirement("8.2.4", part="a lost node is seen on the page")
def test_the_page_follows_the_cluster(browser: Any, nodes: dict[str, Node]) -> None:
    with opened(browser, nodes["node1"]) as page:
        sign_in(page)
        state = page.locator("#state")
        state.get_by_text("live", exact=True).wait_for()
        page.evaluate("window.same = true")
        nodes["node3"].stop()
        try:
            page.get_by_role("heading", name="node3").wait_for(state="detached", timeout=10_000)
            # The event may come a moment after the membership.
            page.locator("#announce").filter(has_text="node3").wait_for(state="attached", timeout=10_000)
        finally:
            nodes["node3"].start()
        page.get_by_role("heading", name="node3").wait_for(timeout=20_000)
        assert page.evaluate("window.same"), "the page was loaded again"

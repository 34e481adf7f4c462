# Copyright (c) 2026 BZZZ cluster setup maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Single values of an operator's own files are changed, and nothing else of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bzzz_setup.declaration import Unsafe, load, typed
from bzzz_setup.editing import REMOVED, edited
from bzzz_setup.events import Refusal

OWN = """\
---
# Ours since March.
service_port: 8080  # the old proxy wants it
ssh_public_keys:
  - !unsafe "ssh-ed25519 AAAA anna@{{ here }}"
hidden: !vault |
  $ANSIBLE_VAULT;1.1;AES256
  6162
path: "{{ inventory_dir }}/files"
"""
scalars = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30)
)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), scalars, max_size=3)


@pytest.mark.requirement("T3", part="YAML: an operator's own file stays as it is but for what is changed")
def test_only_what_is_changed_is_another() -> None:
    after = edited(OWN, {("service_port",): 9090, ("service_mcp_port",): 3001, ("never_there",): REMOVED})
    assert after.splitlines()[2] == "service_port: 9090  # the old proxy wants it"
    kept = [line for line in after.splitlines() if not line.startswith(("service", "- ", "  - "))]
    assert kept == [line for line in OWN.splitlines() if not line.startswith(("service", "  - "))]
    assert load(after) == {**load(OWN), "service_port": 9090, "service_mcp_port": 3001}
    assert isinstance(load(after)["ssh_public_keys"][0], Unsafe)
    assert edited(after, {("service_mcp_port",): REMOVED, ("service_port",): 8080}) == edited(OWN, {})


@given(values, st.sampled_from(["", "---\n", OWN, "a: {b: {c: 1}}\n"]), st.sampled_from([("x",), ("a", "b", "d"), ("new", "er")]))
def test_whatever_is_typed_is_read_back_as_data(value: Any, text: str, path: tuple[str, ...]) -> None:
    found = load(edited(text, {path: value}))
    for key in path[:-1] if value is not REMOVED else ():
        found = found[key]
    if value is not REMOVED:
        assert found[path[-1]] == value

        def judge(now: Any, wanted: Any) -> None:
            if isinstance(wanted, dict):
                for key in wanted:
                    judge(now[key], wanted[key])
            elif isinstance(wanted, list):
                for one, two in zip(now, wanted, strict=True):
                    judge(one, two)
            else:
                assert type(now) is type(typed(wanted))

        judge(found[path[-1]], value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "just text", "a: text\n"])
def test_what_is_no_mapping_is_refused_with_its_name(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        edited(text, {("a", "b"): 1}, "main.yml")
    assert "main.yml" in str(refused.value) and refused.value.problems[0]["remedy"]

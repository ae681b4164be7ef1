"""YAML as a tree with lines."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.loading import PlanError, load_plan
from sidecar.policy.tree import read_tree


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.99", Decimal("0.99")),
        ("1e3", Decimal("1e3")),
        (".5", Decimal("0.5")),
        ("-7", -7),
        ("007", 7),
        ("true", True),
        ("yes", "yes"),
        ("NO", "NO"),
        ("on", "on"),
        ("null", None),
        ("~", None),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("12:30", "12:30"),
        ("2026-11-01", "2026-11-01"),
        (".inf", ".inf"),
        ("'5'", "5"),
        ('"true"', "true"),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: object) -> None:
    found = read_tree(f"a: {text}".encode()).value["a"]
    assert found == value
    assert type(found) is type(value)


def test_every_value_has_its_line() -> None:
    tree = read_tree(b"# first\na:\n  - b: 1\n    c:\n      d: 2\n  - 3\n")
    assert tree.value == {"a": [{"b": 1, "c": {"d": 2}}, 3]}
    assert (tree.line(("a",)), tree.line(("a", 0, "b")), tree.line(("a", 0, "c", "d")), tree.line(("a", 1))) == (
        2,
        3,
        5,
        6,
    )
    assert tree.line(("a", 0, "absent", 5)) == 3, "the nearest value around it"


def test_an_alias_stands_for_its_value() -> None:
    tree = read_tree(b"a: &x {r: 0.1}\nb: *x\n")
    assert tree.value == {"a": {"r": Decimal("0.1")}, "b": {"r": Decimal("0.1")}}
    assert tree.faults == []


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_whatever_the_bytes_are_they_are_refused_with_lines(source: bytes) -> None:
    tree = read_tree(source)
    assert all(1 <= line <= len(source) + 1 for line, _ in tree.faults)
    with pytest.raises(PlanError) as caught:
        load_plan(source, "p")
    assert len(caught.value.problems) >= max(1, len(set(tree.faults)))

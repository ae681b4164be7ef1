"""The condition engine, operator by operator."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.conditions import (
    MISSING,
    Condition,
    ConditionError,
    Conditions,
    Unique,
    compile_condition,
    gather,
    instant,
    lookup,
    number,
)

FACTS = {
    "outcome": "RESOLVED",
    "escalated_to_human": False,
    "turns": 5,
    "score": 4.1,
    "nothing": None,
    "models": ["gpt-4o", "o3"],
    "tokens": {"input": 12, "output": Decimal("3.50")},
    "ended_at": "2026-11-22T10:00:00+01:00",
    "attributes": {"size": "250", "deal.stage": "won", "rank": "second"},
    "items": [{"id": "a"}, {"id": "b"}],
    "listed": {"a": 1},
}


def holds(field: str, operator: str, value: object = None) -> bool:
    condition = compile_condition(field, operator, value)  # type: ignore[arg-type]
    assert isinstance(condition, Condition)
    return condition.holds(FACTS)


@pytest.mark.parametrize(
    ("field", "operator", "value", "expected"),
    [
        ("outcome", "EQUALS", "RESOLVED", True),
        ("outcome", "EQUALS", "resolved", False),
        ("outcome", "NOT_EQUALS", "RESOLVED", False),
        ("outcome", "NOT_EQUALS", "X", True),
        ("escalated_to_human", "EQUALS", False, True),
        ("escalated_to_human", "EQUALS", 0, False),
        ("escalated_to_human", "EQUALS", "false", False),
        ("turns", "EQUALS", 5, True),
        ("turns", "EQUALS", Decimal("5.0"), True),
        ("turns", "EQUALS", True, False),
        ("turns", "EQUALS", "5", False),
        ("attributes.size", "EQUALS", 250, True),
        ("score", "EQUALS", Decimal("4.1"), True),
        ("tokens.output", "EQUALS", Decimal("3.5"), True),
        ("outcome", "IN", ["X", "RESOLVED"], True),
        ("outcome", "IN", ["X"], False),
        ("outcome", "NOT_IN", ["X"], True),
        ("outcome", "NOT_IN", ["RESOLVED"], False),
        ("turns", "GREATER_THAN", 4, True),
        ("turns", "GREATER_THAN", 5, False),
        ("turns", "GREATER_OR_EQUAL", 5, True),
        ("turns", "LESS_THAN", 5, False),
        ("turns", "LESS_OR_EQUAL", 5, True),
        ("score", "LESS_THAN", Decimal("4.1"), False),
        ("attributes.size", "GREATER_THAN", 99, True),
        ("attributes.rank", "GREATER_THAN", 0, False),
        ("escalated_to_human", "LESS_THAN", 1, False),
        ("ended_at", "LESS_OR_EQUAL", "2026-11-22T09:00:00Z", True),
        ("ended_at", "LESS_THAN", "2026-11-22T09:00:00Z", False),
        ("models", "CONTAINS", "o3", True),
        ("models", "CONTAINS", "o", False),
        ("outcome", "CONTAINS", "SOLV", True),
        ("listed", "CONTAINS", "a", False),
        ("outcome", "STARTS_WITH", "RES", True),
        ("outcome", "STARTS_WITH", "SOLVED", False),
        ("outcome", "ENDS_WITH", "SOLVED", True),
        ("turns", "ENDS_WITH", "5", False),
        ("outcome", "MATCHES", "^RE.*D$", True),
        ("outcome", "MATCHES", "SOL", True),
        ("outcome", "MATCHES", "^SOL", False),
        ("turns", "MATCHES", "5", False),
        ("outcome", "EXISTS", None, True),
        ("items.1.id", "EQUALS", "b", True),
        ("items.2.id", "EXISTS", None, False),
        ("items.x.id", "EXISTS", None, False),
        ("attributes.deal.stage", "EQUALS", "won", True),
    ],
)
def test_operator(field: str, operator: str, value: object, expected: bool) -> None:
    assert holds(field, operator, value) is expected


@pytest.mark.parametrize("field", ["absent", "nothing", "outcome.deeper", "tokens.cached", "nothing.at.all"])
def test_on_a_missing_field_only_the_negative_operators_hold(field: str) -> None:
    assert holds(field, "NOT_EQUALS", "x")
    assert holds(field, "NOT_IN", ["x"])
    for operator, value in [
        ("EQUALS", "x"), ("IN", ["x"]), ("GREATER_THAN", 0), ("GREATER_OR_EQUAL", 0), ("LESS_THAN", 9),
        ("LESS_OR_EQUAL", 9), ("CONTAINS", "x"), ("STARTS_WITH", "x"), ("ENDS_WITH", "x"), ("MATCHES", ""),
        ("EXISTS", None),
    ]:  # fmt: skip
        assert not holds(field, operator, value)


@pytest.mark.parametrize(
    ("field", "operator", "value", "window", "key", "words"),
    [
        ("a", "EQUALS", None, None, "value", "needs a value"),
        ("a", "EQUALS", ["x"], None, "value", "cannot be compared"),
        ("a", "IN", "RESOLVED", None, "value", "a list"),
        ("a", "IN", [], None, "value", "a list"),
        ("a", "GREATER_THAN", "many", None, "value", "a number or a time"),
        ("a", "STARTS_WITH", 5, None, "value", "in quotes"),
        ("a", "MATCHES", "(?=x)", None, "value", "RE2"),
        ("a", "MATCHES", "(", None, "value", "RE2"),
        ("a", "MATCHES", "x" * 3000, None, "value", "longer than"),
        ("a", "EXISTS", False, None, "value", "no value"),
        ("a", "EQUALS", 1, "SESSION", "window", "only UNIQUE_WITHIN_WINDOW"),
        ("a", "UNIQUE_WITHIN_WINDOW", None, None, "window", "is needed"),
        ("a", "UNIQUE_WITHIN_WINDOW", 1, "SESSION", "value", "no value"),
        ("a..b", "EXISTS", None, None, "field", "empty part"),
        (".".join("a" * 40), "EXISTS", None, None, "field", "40 parts"),
    ],
)
def test_errors_name_what_to_change(field, operator, value, window, key, words) -> None:
    with pytest.raises(ConditionError, match=words) as caught:
        compile_condition(field, operator, value, window)
    assert caught.value.key == key


def test_unique_is_set_apart_for_the_rater() -> None:
    unique = compile_condition("session_id", "UNIQUE_WITHIN_WINDOW", None, "SESSION")
    plain = compile_condition("outcome", "EQUALS", "RESOLVED")
    both = gather([unique, plain])
    assert both.unique == (Unique(("session_id",), "SESSION"),)
    assert both.hold({"outcome": "RESOLVED"})
    assert not both.hold({"outcome": "X"})
    assert Conditions().hold({})


def test_a_pattern_that_ruins_backtracking_engines_is_searched_in_linear_time() -> None:
    condition = compile_condition("t", "MATCHES", "^(a+)+$")
    assert isinstance(condition, Condition)
    assert not condition.holds({"t": "a" * 100_000 + "b"})


def test_text_that_is_no_unicode_can_be_searched() -> None:
    condition = compile_condition("t", "MATCHES", "end$")
    assert isinstance(condition, Condition)
    assert condition.holds({"t": "\ud800 end"})


def test_numbers_are_exact() -> None:
    assert number(0.1) == Decimal("0.1")
    assert number("0.10") == Decimal("0.1")
    assert number(True) is None
    for unusable in ("1e3", " 1", "", "١", "0x10", float("nan"), float("inf"), 10**31, "9" * 31, 1e300, None, []):
        assert number(unusable) is None
    large = compile_condition("n", "EQUALS", 2**63)
    assert isinstance(large, Condition)
    assert not large.holds({"n": 2**63 - 1})


def test_instants() -> None:
    assert instant("2026-11-22T10:00:00Z") == instant("2026-11-22T11:00:00+01:00")
    assert instant("2026-11-22") == instant("2026-11-22T00:00:00Z")
    for unusable in ("soon", 5, "2026-13-01", "x" * 99):
        assert instant(unusable) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(value=json_values, operand=st.sampled_from(["x", 5, Decimal("0.5"), True]))
def test_whatever_the_facts_hold_nothing_raises_and_negatives_are_complements(value, operand) -> None:
    facts = {"f": value}

    def ask(operator, given):
        condition = compile_condition("f", operator, given)
        assert isinstance(condition, Condition)
        return condition.holds(facts)

    assert ask("EQUALS", operand) != ask("NOT_EQUALS", operand)
    assert ask("IN", [operand, "y"]) != ask("NOT_IN", [operand, "y"])
    assert ask("CONTAINS", operand) in (True, False)
    assert ask("MATCHES", "a.c") in (True, False)
    numeric = number(value) is not None and not isinstance(value, bool)
    assert (ask("LESS_THAN", 5) or ask("GREATER_OR_EQUAL", 5)) == numeric
    assert (lookup(facts, ("f",)) is MISSING) == (value is None)

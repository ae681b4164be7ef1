"""What differs between what was expected and what was seen."""

from __future__ import annotations

from decimal import Decimal

import pytest

from sidecar.plantest.conversation import Expected
from sidecar.plantest.seen import Difference, Seen, compare, exact_event

FIELDS = {
    "state": "RESOLVED", "outcome": "RESOLVED", "confirmation": "CONFIRMED", "escalated_to_human": False,
    "reason": "tool", "customer": "acme", "conversation": "c-1", "held": False, "billable": True, "complete": True,
    "shadow": False, "turns": 2, "llm_calls": 3, "tool_calls": 1, "attributes": {"score": 82, "tier": "A"},
    "rules": ["r"], "posted": ["RESOLVED"], "metrics": ["m", "n"], "charges": ["c"],
}  # fmt: skip
SEEN = Seen("ses_1", FIELDS, ())
OTHER = {
    "state": "REVERSED", "outcome": "QUALIFIED", "confirmation": "ASSUMED", "escalated_to_human": True,
    "reason": "", "customer": None, "conversation": "c-2", "held": True, "billable": False, "complete": False,
    "shadow": True, "turns": 1, "llm_calls": 0, "tool_calls": 2, "attributes": {"score": 81}, "rules": [],
    "posted": ["INCONCLUSIVE", "RESOLVED"], "metrics": [], "charges": ["c", "d"],
}  # fmt: skip


def test_every_field_that_can_be_expected_is_seen():
    assert set(Expected.model_fields) == set(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_as_it_is_makes_no_difference_and_any_other_value_does(name):
    assert list(compare([Expected.model_validate({name: FIELDS[name]})], [SEEN])) == []
    [difference] = compare([Expected.model_validate({name: OTHER[name]})], [SEEN])
    assert (difference.session, difference.field) == (0, name)
    assert f"session 1: {name} is " in str(difference)


def test_what_is_not_named_is_not_compared_and_attributes_are_a_part():
    assert list(compare([Expected()], [SEEN])) == []
    assert list(compare([Expected(attributes={"score": Decimal("82.0")})], [SEEN])) == []
    assert list(compare([Expected(attributes={"lost": None})], [SEEN])) == []
    assert list(compare([Expected(metrics=["n", "m"])], [SEEN])) == []
    assert len(list(compare([Expected(attributes={"tier": "82"})], [SEEN]))) == 1


def test_the_number_of_sessions_is_compared():
    assert list(compare([], [SEEN])) == [Difference(None, "sessions", 0, 1)]
    found = list(compare([Expected(), Expected(turns=9)], [SEEN]))
    assert [str(each) for each in found] == ["the number of sessions is 1, expected 2"]


def test_an_event_is_read_as_billing_reads_it():
    event = exact_event(b'{"time": "2026-11-02T09:00:00Z", "data": {"attributes": {"n": 0.1}}}')
    assert event["data"]["attributes"]["n"] == Decimal("0.1")
    assert event["at_us"] == 1_793_610_000_000_000

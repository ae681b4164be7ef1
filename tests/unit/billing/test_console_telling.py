"""The sentences of a session's page."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.billing.console import wording
from sidecar.billing.console.telling import timeline
from sidecar.billing.ledger.mentions import LENGTHS, MENTIONS_MAX, mentioned
from sidecar.billing.ledger.verifying import check

US = 1_795_341_600_000_000


def row(revision: int = 0, state: str = "RESOLVED", **data: Any) -> dict[str, Any]:
    body = json.dumps({"data": {"state": state, "reason": None, **data}})
    return {
        "id": f"out_{revision}", "revision": revision, "state": state, "body": body,
        "outcome": data.pop("outcome", state),
        "at_us": US + revision * 1_000_000, "received_us": US + revision * 1_000_000 + 500_000, "held": False,
        "billable": True, "shadow": False, "reverses": f"out_{revision - 1}" if revision else None,
    }  # fmt: skip


def digests(*rows: dict[str, Any]) -> dict[str, str]:
    return {one["id"]: hashlib.sha256(one["body"].encode()).hexdigest() for one in rows}


def test_a_session_is_told_in_the_order_of_time_and_evidence_once():
    evidence = [{"at": "2026-11-22T09:59:00Z", "rule": "close", "kind": "tool_call", "digest": "d"}]
    more = [*evidence, {"at": "2026-11-22T10:00:00.5Z", "rule": "crm", "kind": "signal", "digest": ""}]
    first = row(started_at="2026-11-22T09:00:00Z", turns=2, llm_calls=1, evidence=evidence, reason="tool")
    second = row(1, "REVERSED", evidence=more, reason="came back")
    decided = {
        "kind": "assign",
        "actor": "ann",
        "reason": "r",
        "assigned": "c",
        "decided_us": US + 9_000_000,
        "outcome_id": "o",
    }
    assert [one.what for one in timeline([first, second], [decided])] == [
        "The session began; until its end it had 2 messages of the user, 1 model call",
        "The agent called a tool; the rule “close” took it",
        "It was posted as resolved: tool",
        "A signal was posted by “crm”",
        "A later revision (1) replaced that: it was not resolved after all: came back",
        "ann said whose it is: c. Reason: r",
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(["started_at", "turns", "llm_calls", "evidence", "reason"], json_values)
    )
)
def test_whatever_an_event_says_beside_money_it_can_be_told(data: dict[str, Any]):
    told = timeline([row(**data)], [])
    assert told[-1].at_us <= US or data.get("started_at")
    assert all(isinstance(one.what, str) for one in told)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.text(max_size=8), json_values, max_size=30))
def test_what_is_mentioned_looks_like_an_id(attributes: dict[str, Any]):
    found = mentioned(attributes)
    assert len(found) == len(set(found)) <= MENTIONS_MAX
    assert all(len(one) in LENGTHS and any(map(str.isdigit, one)) and "\0" not in one for one in found)


@pytest.mark.parametrize(
    ("attributes", "ids"),
    [
        ({"ticket": "T-1", "again": "T-1"}, ["T-1"]),
        ({"ticket": 4711, "flag": True, "share": 0.5, "one": 7}, ["4711"]),
        ({"orders": ["a1", 22, None, ["b2"]], "deep": {"id": "c3"}}, ["a1", "22"]),
        ({"language": "en", "said": "call 911 now", "none": None}, []),
    ],
)
def test_ids_are_told_from_words(attributes: dict[str, Any], ids: list[str]):
    assert mentioned(attributes) == ids


def test_events_are_checked_against_their_digests_and_each_other():
    first, second, third = row(), row(1, "REVERSED"), row(2, "NOT_BILLABLE")
    good = digests(first, second, third)
    assert check([first, second, third], good).problems == ()
    assert "was changed" in check([first], {"out_0": "0"}).problems[0]
    assert "has not arrived" in check([first, third], good).problems[0]
    assert "is the first that has arrived" in check([second], good).problems[0]
    assert "replaces other, not out_0" in check([first, {**second, "reverses": "other"}], good).problems[0]
    twice = {**first, "id": "out_x"}
    assert "there twice" in check([first, twice], {**good, **digests(twice)}).problems[0]


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        ("0.5", "USD", "$0.50"), ("49", "USD", "$49.00"), ("0.0015", "USD", "$0.0015"), ("-3", "JPY", "−¥3"),
        ("1234567.5", "EUR", "€1 234 567.50"), ("1", "KWD", "1.000 KWD"), ("1", "", "1"), (None, "USD", "–"),
    ],
)  # fmt: skip
def test_amounts_have_the_digits_of_their_currency(amount: str | None, currency: str, shown: str):
    assert wording.money(amount, currency).replace(wording.THIN, " ") == shown

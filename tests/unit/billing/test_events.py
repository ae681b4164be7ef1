"""What an event must hold, and when two bodies are the same."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.billing.events import (
    EventError,
    OutcomeEvent,
    UnreadableBodyError,
    canonical_json,
    id_of,
    parse_json,
    parse_time,
    read_event,
)
from sidecar.policy.conditions import number


def event(**changes) -> dict:
    data = {
        "session_id": "ses_1", "conversation": "c-42", "tenant": "acme", "outcome": "RESOLVED", "state": "RESOLVED",
        "confirmation": "CONFIRMED", "escalated_to_human": False, "reason": "tool", "revision": 0, "reverses": None,
        "held": False, "billable": True, "shadow": False, "tokens": {"input": 3, "output": 4},
        **changes.pop("data", {}),
    }  # fmt: skip
    return {
        "specversion": "1.0", "id": "out_1", "source": "sidecar/acme", "type": "sidecar.outcome.v1",
        "subject": "customer-17", "time": "2026-11-22T10:00:00Z", "datacontenttype": "application/json",
        "data": data, **changes,
    }  # fmt: skip


def test_a_whole_event_is_taken_and_what_is_unknown_is_kept() -> None:
    posted = read_event(event(traceparent="00-1", data={"from_the_future": {"a": [1, 2]}}))
    assert isinstance(posted.event, OutcomeEvent)
    assert json.loads(posted.body)["data"]["from_the_future"] == {"a": [1, 2]}
    assert posted.at_us == 1_795_341_600_000_000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"id": ""}, "id"),
        ({"id": "x" * 101}, "id"),
        ({"id": "a\nb"}, "control characters"),
        ({"id": 5}, "id"),
        ({"type": "other"}, "type: 'other' is not known"),
        ({"type": ["x"]}, "is not known"),
        ({"subject": ""}, "subject"),
        ({"subject": "\ud800"}, "unicode"),
        ({"time": "yesterday"}, "RFC 3339"),
        ({"time": "2026-11-22T10:00:00"}, "with a zone"),
        ({"time": "2026-02-30T10:00:00Z"}, "does not exist"),
        ({"time": "1970-01-01T00:00:00Z"}, "outside the years"),
        ({"data": {"state": "OPEN"}}, "data.state"),
        ({"data": {"outcome": "NO SPACES"}}, "data.outcome"),
        ({"data": {"escalated_to_human": "false"}}, "data.escalated_to_human"),
        ({"data": {"revision": -1}}, "data.revision"),
        ({"data": {"revision": True}}, "data.revision"),
        ({"data": {"revision": 1}}, "must name its predecessor"),
        ({"data": {"reverses": "out_0"}}, "reverses must be null"),
        ({"data": {"revision": 1, "reverses": "out_1"}}, "own id"),
        ({"data": {"billable": None}}, "data.billable"),
        ({"data": {"filler": "x" * 300_000}}, "bytes"),
    ],
)
def test_refused_with_the_field_that_must_change(changes: dict, words: str) -> None:
    with pytest.raises(EventError, match=words):
        read_event(event(**changes))


def test_everything_missing_is_named_at_once() -> None:
    with pytest.raises(EventError) as caught:
        read_event({"type": "sidecar.outcome.v1", "data": {}})
    for field in ("specversion", "id", "source", "time", "data.session_id", "data.state", "data.outcome"):
        assert f"{field}: is missing" in str(caught.value)
    for nothing in (None, 5, [], "x"):
        with pytest.raises(EventError):
            read_event(nothing)
        assert id_of(nothing) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1, "a": 2}',
        b"[" * 100_000,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b"9" * 5000,
        b"1e999999999999999999999999",
    ],
)
def test_unreadable_bodies(body: bytes) -> None:
    with pytest.raises(UnreadableBodyError):
        parse_json(body)


def test_times() -> None:
    assert parse_time("2026-11-22T10:00:00.123456789z").microsecond == 123456
    assert parse_time("2026-11-22T01:00:00+02:00").isoformat() == "2026-11-21T23:00:00+00:00"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a":1,"b":[true,null]}', ' { "b" : [ true , null ], "a" : 1.0 } '),
        ('"\\u00e9"', '"é"'),
        ("1e2", "100"),
        ("-0.0", "0"),
        ("1e99999999", "10e99999998"),
        ("1.50", "15e-1"),
    ],
)
def test_same_value_same_canonical_form(one: str, other: str) -> None:
    assert canonical_json(parse_json(one.encode())) == canonical_json(parse_json(other.encode()))


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "true"), ('"1"', "1"), ("[1,2]", "[2,1]"), ("0.1", "0.10000000000000001"), ("1e999999", "1e99")],
)
def test_different_values_differ(one: str, other: str) -> None:
    assert canonical_json(parse_json(one.encode())) != canonical_json(parse_json(other.encode()))


def test_numbers_beyond_all_use_are_taken_and_count_for_nothing() -> None:
    value = parse_json(json.dumps(event(data={"attributes": {"size": "N"}})).replace('"N"', "1e99999999").encode())
    posted = read_event(value)
    assert number(value["data"]["attributes"]["size"]) is None
    assert len(posted.body) < 1000


def test_deep_nesting_is_refused() -> None:
    def nested(levels: int) -> list:
        inner: list = []
        for _ in range(levels):
            inner = [inner]
        return inner

    assert read_event(event(data={"deep": nested(50)}))
    with pytest.raises(EventError, match="nested deeper"):
        read_event(event(data={"deep": nested(900)}))


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text()
        | st.decimals(allow_nan=False, allow_infinity=False, places=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    )
)
def test_canonical_json_reads_back_as_the_same_value(value) -> None:
    again = json.loads(canonical_json(value), parse_float=Decimal)
    assert again == value
    assert canonical_json(again) == canonical_json(value)

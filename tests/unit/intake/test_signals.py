"""What senders may write, and what they are told when they may not."""

import json

import pytest

from sidecar.identity import key
from sidecar.intake.signal import from_json
from sidecar.intake.signals import InvalidSignalError, build_signal, parse_signal
from sidecar.policy.terms import Terms

GOOD = {
    "id": "1",
    "source": "crm",
    "alias": {"kind": "conversation", "value": "c-42"},
    "outcome": "RESOLVED",
}


def build(**changes):
    raw = json.dumps({k: v for k, v in {**GOOD, **changes}.items() if v is not None}).encode()
    return build_signal(
        parse_signal(raw),
        producer="journal",
        tenant="acme",
        at_ms=5,
        terms=Terms("plan", "sha256:0"),
        hash_key=b"k",
        raw=raw,
    )(7)


@pytest.mark.parametrize(
    ("changes", "event", "outcome"),
    [
        ({}, "resolve", "RESOLVED"),
        ({"outcome": "PROACTIVE_OUTREACH_RESOLVED"}, "resolve", "PROACTIVE_OUTREACH_RESOLVED"),
        ({"outcome": "ESCALATED_TO_HUMAN"}, "escalate", None),
        ({"outcome": None, "escalated_to_human": True}, "escalate", None),
        ({"escalated_to_human": True}, "escalate", None),
        ({"outcome": "UNRESOLVED"}, "unresolve", None),
    ],
)
def test_what_a_signal_means(changes, event, outcome):
    effect = build(**changes).effect
    assert (effect.event, effect.outcome) == (event, outcome)


def test_the_alias_is_the_one_that_traffic_has():
    assert build().alias == key("acme", "conversation", "c-42")


def test_the_journal_gives_back_what_it_was_given():
    signal = build(attributes={"score": 4, "vip": True, "team": "a"}, at="2026-11-22T10:00:00+01:00")
    assert from_json(signal.to_json()) == signal
    assert signal.sequence == 7


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"outcome": "INCONCLUSIVE"}, "no signal can say it"),
        ({"outcome": "resolved"}, "upper case"),
        ({"outcome": None}, "outcome, or escalated_to_human"),
        ({"alias": None}, "exactly one of session_id and alias"),
        ({"session_id": "ses_0123456789"}, "exactly one of session_id and alias"),
        ({"alias": None, "session_id": "c-42"}, "session_id"),
        ({"alias": {"kind": "ticket", "value": "1"}}, "alias.kind"),
        ({"id": ""}, "id"),
        ({"id": "a\nb"}, "control characters"),
        ({"source": "x" * 257}, "longer than 256"),
        ({"attributes": {str(n): n for n in range(33)}}, "more than 32"),
        ({"attributes": {"deep": {"a": 1}}}, "attributes.deep"),
        ({"attributes": {"seats": 10**20}}, "64 bits"),
        ({"attributes": {"rate": float("inf")}}, "rate is no finite number"),
        ({"at": "2026-11-22T10:00:00"}, "at"),
        ({"outcom": "RESOLVED"}, "outcom"),
    ],
)
def test_what_is_wrong_is_named(changes, says):
    with pytest.raises(InvalidSignalError) as caught:
        build(**changes)
    assert says in str(caught.value)


def test_a_number_beyond_all_bounds_is_no_attribute():
    raw = json.dumps({**GOOD, "attributes": {"rate": 0}}).replace("0}", "1e999}").encode()
    with pytest.raises(InvalidSignalError, match="finite"):
        parse_signal(raw)


def test_not_json_is_named():
    with pytest.raises(InvalidSignalError, match="JSON"):
        parse_signal(b"outcome=RESOLVED")

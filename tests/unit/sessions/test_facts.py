"""What the scripts are given: no nulls, within bounds."""

import orjson

from sidecar.identity import Key
from sidecar.intake.signal import Signal
from sidecar.observer.observation import Observation
from sidecar.policy.effect import Effect
from sidecar.policy.terms import Terms
from sidecar.sessions.facts import CALLS_MAX, KEYS_MAX, MESSAGES_MAX, TOKENS_MAX, observation_json, signal_json

TERMS = Terms("fin", "sha256:aa")


def has_null(value):
    if isinstance(value, dict):
        return any(has_null(inner) for inner in value.values())
    return any(has_null(inner) for inner in value) if isinstance(value, list) else value is None


def test_an_observation_carries_no_nulls_and_exact_attributes():
    effect = Effect("r", "tool_call", "resolve", attributes={"n": 2**60, "f": 0.1, "t": "x", "b": True})
    fact = orjson.loads(observation_json(Observation("p", 1, "t", 5, 9, (), "base", TERMS, effects=(effect,))))
    assert not has_null(fact)
    assert "customer" not in fact
    assert fact["effects"][0]["attributes"] == {"n": str(2**60), "f": "0.1", "t": '"x"', "b": "true"}


def test_a_hostile_observation_is_cut_to_bounds():
    keys = tuple(Key("response", str(n)) for n in range(500))
    observation = Observation(
        "p",
        1,
        "t",
        9,
        5,
        keys,
        "base",
        TERMS,
        made=keys,
        user_messages=tuple(str(n) for n in range(10_000)),
        tool_calls=tuple(str(n) for n in range(10_000)),
        input_tokens=10**30,
    )
    fact = orjson.loads(observation_json(observation))
    assert len(fact["keys"]) == KEYS_MAX
    assert len(fact["made"]) == KEYS_MAX
    assert len(fact["user_messages"]) == MESSAGES_MAX
    assert fact["user_messages"][-1] == "9999"
    assert len(fact["tool_calls"]) == CALLS_MAX
    assert fact["complete"] is False
    assert fact["input_tokens"] == TOKENS_MAX
    assert fact["at_ms"] == fact["started_ms"] == 9


def test_a_signal_names_a_session_or_an_alias():
    effect = Effect("signal", "signal", "escalate")
    by_alias = Signal("j", 1, "t", "crm", "id", 5, effect, TERMS, alias=Key("conversation", "d"))
    by_id = Signal("j", 1, "t", "crm", "id", 5, effect, TERMS, session_id="ses_1", claimed_at="2026-01-01T00:00:00Z")
    first, second = (orjson.loads(signal_json(signal)) for signal in (by_alias, by_id))
    assert (first["alias"], "session_id" in first) == ("d", False)
    assert (second["session_id"], "alias" in second) == ("ses_1", False)
    assert not has_null(first)
    assert not has_null(second)

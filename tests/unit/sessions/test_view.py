"""Sessions as they are shown."""

import json

import pytest

from sidecar.sessions.states import State
from sidecar.sessions.view import read_session, rfc3339

RAW = {
    "id": "ses_1",
    "tenant": "acme",
    "state": "AI_HANDLING",
    "terms": {
        "plan": "fin",
        "digest": "sha256:aa",
        "timeout_ms": 1,
        "settle_ms": 0,
        "reversal_ms": 2,
        "inconclusive_policy": "NO_CHARGE",
        "incomplete_policy": "NO_CHARGE",
        "on_return": "NEW_SESSION",
    },
    "started": 1_795_341_600_000,
    "last": 1_795_341_600_250,
    "deadline": 1_795_345_200_250,
    "finalized": 0,
    "revision": -1,
    "reason": "",
    "held": False,
    "complete": True,
    "shadow": False,
    "turns": 1,
    "llm_calls": 1,
    "tool_calls": 0,
    "input_tokens": 3,
    "output_tokens": 4,
    "models": {},
    "attributes": {"n": "12345678901234567890"},
    "evidence": {},
    "omitted": 0,
}


def test_what_lua_wrote_is_read_and_shown():
    timeline = [json.dumps({"what": "opened", "at": 1_795_341_600_000}).encode()]
    view = read_session(json.dumps(RAW).encode(), timeline)
    assert view.state == State.AI_HANDLING
    assert view.is_open
    shown = view.to_dict()
    assert shown["started_at"] == "2026-11-22T10:00:00Z"
    assert shown["last_activity_at"] == "2026-11-22T10:00:00.250Z"
    assert shown["finalized_at"] is None
    assert shown["revision"] is None
    assert (shown["models"], shown["evidence"]) == ([], [])
    assert shown["attributes"] == {"n": 12345678901234567890}
    assert shown["timeline"] == [{"what": "opened", "at": "2026-11-22T10:00:00Z"}]
    assert (shown["conversation"], shown["customer"]) == (None, None)
    json.dumps(shown)


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "1970-01-01T00:00:00Z"), (999, "1970-01-01T00:00:00.999Z"), (1000, "1970-01-01T00:00:01Z")]
)
def test_rfc3339(ms, text):
    assert rfc3339(ms) == text

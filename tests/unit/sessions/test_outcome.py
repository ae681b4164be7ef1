"""Reading what the scripts froze."""

import json

import pytest

from sidecar.sessions.outcome import Evidence, read_outcome, read_statement

SNAPSHOT = {
    "v": 1,
    "session_id": "ses_1",
    "tenant": "acme",
    "revision": 1,
    "state": "REVERSED",
    "outcome": "UNRESOLVED",
    "time_ms": 3,
    "started_ms": 1,
    "ended_ms": 2,
    "plan": "fin",
    "plan_digest": "sha256:aa",
    "models": ["a"],
    "attributes": {"n": "1"},
    "evidence": [{"at": 2, "rule": "r", "kind": "k", "digest": ""}],
}


def test_a_snapshot_is_read_with_its_defaults():
    outcome = read_outcome(json.dumps(SNAPSHOT).encode())
    assert (outcome.state, outcome.revision, outcome.customer, outcome.billable) == ("REVERSED", 1, None, True)
    assert outcome.models == ("a",)
    assert outcome.attributes == {"n": 1}
    assert outcome.evidence == (Evidence(2, "r", "k", ""),)


@pytest.mark.parametrize("changes", [{"v": 2}, {"v": None}])
def test_another_format_is_an_error_and_not_a_guess(changes):
    with pytest.raises(ValueError, match="format 1"):
        read_outcome(json.dumps(SNAPSHOT | changes).encode())


def test_a_statement_without_finalized_sessions():
    raw = {"v": 1, "tenant": "t", "hour": "h", "time_ms": 1, "generation": "g", "counters": {"opened": 1}, "dropped": 0}
    assert read_statement(json.dumps(raw | {"finalized": {}}).encode()).finalized == {}
    assert read_statement(json.dumps(raw | {"finalized": {"RESOLVED": 1}}).encode()).finalized == {"RESOLVED": 1}

"""What others have posted breaks no command, and moves no cursor."""

import httpx
import pytest

from sidecar import cli
from sidecar.cli import api, tail

NASTY = "red \x1b[31m\r\n\u202e"
SEEN = "red \ufffd[31m\ufffd\ufffd\ufffd"
OUTCOME = {
    "id": "out_0b5a",
    "session_id": NASTY,
    "conversation": NASTY,
    "customer": NASTY,
    "charged_to": None,
    "state": "RESOLVED",
    "outcome": NASTY,
    "revision": 0,
    "held": False,
    "billable": True,
    "shadow": False,
    "period": "2026-11",
    "late": None,
    "time": "2026-11-22T10:00:00Z",
    "received_at": "2026-11-22T10:00:00Z",
    "decisions": [],
    "amounts": [],
}
CANDIDATE = {
    "plan": {"name": NASTY, "digest": "sha256:a"},
    "problems": [NASTY],
    "same": 0,
    "different": 1,
    "pending": 0,
    "only_live": 0,
    "only_candidate": 0,
    "dropped": 0,
    "matrix": {},
    "differences": [
        {
            "conversation": NASTY,
            "session_id": "ses_1",
            "live": {"outcome": NASTY, "reason": NASTY},
            "candidate": {"outcome": None, "reason": NASTY},
        }
    ],
}


@pytest.fixture
def ask(monkeypatch, capsys):
    """One command, to APIs that answer everything alike; what it printed has not a character that moves a cursor."""

    def ask_with(answer, *argv, code=0):
        transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))

        def asked(*_, **__):
            client = httpx.Client(base_url="http://there", transport=transport)
            return api.Api("API", client, "TOKEN", "--option")

        monkeypatch.setattr(api, "admin", asked)
        monkeypatch.setattr(api, "billing", asked)
        assert cli.main(list(argv)) == code
        printed = "".join(capsys.readouterr())
        assert all(line.isprintable() for line in printed.split("\n")), printed
        return printed

    return ask_with


@pytest.mark.parametrize(
    ("evidence", "shown"),
    [
        ([{"at": "2026-11-22T10:00:00Z", "rule": "r", "kind": "tool", "digest": NASTY}], f"Z  r (tool)  {SEEN}"),
        ([{"note": "nothing else"}], "–  – (–)  –"),
        ([NASTY, 7], f"evidence      {SEEN}\n  evidence      7"),
        ({"rule": "r"}, "–  r (–)  –"),
        (NASTY, SEEN),
        (None, "RESOLVED"),
    ],
)
def test_evidence_is_shown_whatever_was_posted(evidence, shown, ask):
    event = {"data": {"evidence": evidence, "reason": NASTY}}
    printed = ask(OUTCOME | {"event": event}, "outcomes", "show", "out_0b5a")
    assert shown in printed
    assert ("evidence" in printed) is (evidence is not None)


def test_what_was_decided_is_shown_on_one_line(ask):
    made = {"outcome": "out_0b5a", "kind": "assign", "assigned": NASTY, "period": "2026-11", "actor": NASTY}
    argv = ("assign", "out_0b5a", "--customer", "x", "--actor", "ann", "--reason", "why", "--yes")
    assert SEEN in ask(made, "outcomes", *argv)


def test_sentences_about_a_session_are_one_line_each(ask):
    session = {"id": "ses_1", "state": "RESOLVED", "explanation": [NASTY], "timeline": []}
    assert ask(session, "sessions", "explain", "ses_1") == f"ses_1  RESOLVED\n  {SEEN}\n"


def test_problems_of_a_timeline_are_one_line_each(ask):
    found = {"id": "ses_1", "session_id": "ses_1", "intact": False, "problems": [NASTY], "entries": 1, "omitted": 0}
    assert SEEN in ask(found | {"evidence_chain": "sha1:a"}, "sessions", "verify", "ses_1", code=1)


def test_differences_of_a_candidate_are_one_line_each(ask):
    printed = ask(CANDIDATE, "plan", "candidate")
    assert f"{SEEN}: {SEEN} ({SEEN}), candidate – ({SEEN})" in printed


def test_what_is_rejected_of_an_import_is_one_line(ask, tmp_path):
    path = tmp_path / "events.ndjson"
    path.write_text("{}\n")
    answer = {"accepted": 0, "duplicates": 0, "rejected": [{"id": NASTY, "reason": NASTY}]}
    assert f"{SEEN}: {SEEN}" in ask(answer, "billing", "import", str(path), code=1)


def test_an_event_is_one_line():
    names = ("session_id", "customer", "reason")
    event = dict.fromkeys(names, NASTY) | {"source": "billing", "time": "2026-11-22T10:00:00Z", "state": "RESOLVED"}
    event |= {"held": False, "shadow": False, "revision": 0, "amounts": None, "decision": None}
    assert tail.line(event).isprintable()
    assert tail.line(event | {"decision": {"kind": "reverse", "actor": NASTY}}).isprintable()

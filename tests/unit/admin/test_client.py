"""`sidecar sessions …`: what people see of the admin API's answers."""

import httpx
import pytest

from sidecar import cli
from sidecar.admin import client

LONG = "ses_" + "0123456789abcdef" * 2 + "01234567"
SESSION = {
    "id": LONG,
    "conversation": "a-conversation-with-quite-a-long-name-of-its-own",
    "customer": None,
    "state": "RESOLVED_PENDING",
    "turns": 2,
    "llm_calls": 13,
    "last_activity_at": "2026-11-22T17:12:38.799Z",
}
EXPLAINED = SESSION | {
    "explanation": [f"It was resolved [by a tool], evidence hmac-sha256:{'a' * 64}."],
    "timeline": [
        {"at": "2026-11-22T17:12:38.799Z", "what": "opened"},
        {"at": "2026-11-22T17:12:39.799Z", "what": "rule", "rule": "resolve", "digest": f"hmac-sha256:{'b' * 64}"},
    ],
}


@pytest.fixture
def ask(monkeypatch, capsys):
    def ask_with(answer, *arguments, status=200):
        transport = httpx.MockTransport(lambda _: httpx.Response(status, json=answer))
        monkeypatch.setattr(client, "_client", lambda _: httpx.Client(base_url="http://sidecar", transport=transport))
        code = cli.main(["sessions", *arguments])
        return code, *capsys.readouterr()

    return ask_with


def test_the_list_shows_ids_whole_however_narrow_the_terminal(ask, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    code, out, _ = ask({"sessions": [SESSION, SESSION | {"customer": "acme"}]}, "list")
    head, first, second = out.splitlines()
    assert code == 0
    assert head.split()[:4] == ["SESSION", "CONVERSATION", "CUSTOMER", "STATE"]
    assert first.split() == [
        LONG,
        SESSION["conversation"],
        "unattributed",
        "RESOLVED_PENDING",
        "2",
        "13",
        "2026-11-22T17:12:38.799Z",
    ]
    assert first.index("RESOLVED_PENDING") == second.index("RESOLVED_PENDING") == head.index("STATE")


def test_an_empty_list_says_so_and_leaves_stdout_to_programs(ask):
    assert ask({"sessions": []}, "list") == (0, "", "no sessions\n")


def test_an_explanation_breaks_no_digest(ask):
    code, out, _ = ask(EXPLAINED, "explain", LONG)
    assert code == 0
    assert out.startswith(f"{LONG}  RESOLVED_PENDING\n  {EXPLAINED['explanation'][0]}\n")
    assert out.rstrip().endswith(f"resolve  hmac-sha256:{'b' * 64}")


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (0, "no dead letters"),
        (1, "1 dead letter is in the outbox again"),
        (2, "2 dead letters are in the outbox again"),
    ],
)
def test_redelivery_counts(ask, count, says):
    assert ask({"redelivered": count}, "redeliver") == (0, f"{says}\n", "")


def test_a_refusal_is_one_line_on_stderr(ask):
    assert ask({"detail": "no session 'x' is known"}, "explain", "x", status=404) == (
        1,
        "",
        "sidecar: no session 'x' is known\n",
    )

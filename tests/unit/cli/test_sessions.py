"""`sidecar sessions …`: what people see of the admin API's answers."""

import httpx
import pytest

from sidecar import cli
from sidecar.cli import api

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


def asked(what, transport):
    return api.Api(what, httpx.Client(base_url="http://there", transport=transport), "TOKEN", "--option")


@pytest.fixture
def ask(monkeypatch, capsys):
    def ask_with(answer, *arguments, status=200):
        transport = httpx.MockTransport(lambda _: httpx.Response(status, json=answer))
        monkeypatch.setattr(api, "admin", lambda _: asked("admin API", transport))
        code = cli.main(["sessions", *arguments])
        return code, *capsys.readouterr()

    return ask_with


def test_the_list_shows_ids_whole_however_narrow_the_terminal(ask, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    code, out, _ = ask({"sessions": [SESSION, SESSION | {"customer": "acme"}], "next": None}, "list")
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
    assert ask({"sessions": [], "next": None}, "list") == (0, "", "no sessions\n")


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


VERIFIED = {
    "session_id": LONG,
    "intact": True,
    "problems": [],
    "entries": 2,
    "omitted": 0,
    "evidence_chain": "sha1:b",
    "posted": [{"revision": 0, "evidence_chain": "sha1:a"}, {"revision": 1, "evidence_chain": "sha1:b"}],
}


@pytest.fixture
def ask_both(monkeypatch, capsys):
    """The admin API and the billing API, each answering as told."""

    def ask_with(verified, ledger, *arguments):
        def admin(request):
            verifying = request.url.path.endswith("/verification")
            return httpx.Response(200, json=verified if verifying else SESSION)

        def billing(_):
            return httpx.Response(200, json={"entries": ledger})

        monkeypatch.setattr(api, "admin", lambda _: asked("admin API", httpx.MockTransport(admin)))
        monkeypatch.setattr(api, "billing", lambda _: asked("billing API", httpx.MockTransport(billing)))
        code = cli.main(["sessions", "verify", *arguments])
        return code, *capsys.readouterr()

    return ask_with


def posted(revision, chain):
    return {"event": {"data": {"revision": revision, "evidence_chain": chain}}}


def test_verify_follows_an_alias_and_says_that_all_is_as_it_was_written(ask_both):
    code, out, _ = ask_both(VERIFIED, [], "conversation:c-42")
    assert code == 0
    assert "every entry is as it was written" in out
    assert "not compared with the ledger" in out


def test_verify_compares_every_revision_with_the_ledger(ask_both):
    agreeing = [posted(0, "sha1:a"), posted(1, "sha1:b")]
    code, out, _ = ask_both(VERIFIED, agreeing, LONG, "--billing", "http://billing")
    assert (code, "agrees with the ledger's 2 entries" in out) == (0, True)
    code, out, _ = ask_both(VERIFIED, [posted(0, "sha1:x"), posted(1, "sha1:b")], LONG, "--billing", "http://billing")
    assert code == 1
    assert "the ledger has revision 0 with the chain sha1:x, the timeline has sha1:a" in out
    assert "as it was written" not in out


def test_verify_fails_when_the_timeline_was_changed(ask_both):
    broken = VERIFIED | {"intact": False, "problems": ["entry 2 does not follow on entry 1"]}
    code, out, _ = ask_both(broken, [], LONG)
    assert (code, "entry 2 does not follow" in out) == (1, True)

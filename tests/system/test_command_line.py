"""The command line as people use it: the real binary beside a real sidecar and its billing API."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from harness import ROOT, ledger, wait_for

BINARY = Path(sys.executable).parent / "sidecar"
PLAN = """
rate_plan:
  name: resolutions
  currency: USD
  metrics: [{id: m, aggregation: COUNT, filter_conditions: [{field: outcome, operator: EQUALS, value: RESOLVED}]}]
  pricing: {model: PER_UNIT, rate: 0.99}
"""


def environ(running):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    return clean | running.env | {"SIDECAR_ADMIN_LISTEN": running.admin.removeprefix("http://")}


def command(running, *arguments, code=0):
    argv = [BINARY, *arguments]
    ended = subprocess.run(
        argv, env=environ(running), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == code, ended.stderr + ended.stdout
    return ended.stdout if code == 0 else ended.stderr


class Tail:
    """`sidecar tail` in the background, its output in files."""

    def __init__(self, folder, running, *arguments):
        folder.mkdir()
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("w") as out, self.err.open("w") as err:
            argv = [BINARY, "tail", *arguments]
            self.process = subprocess.Popen(argv, env=environ(running), cwd=ROOT, stdout=out, stderr=err)

    def events(self):
        assert self.process.poll() is None, self.err.read_text()
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def interrupt(self):
        """Ctrl-C; its exit code and what it said at the end."""
        shown = self.events()
        self.process.send_signal(signal.SIGINT)
        return shown, self.process.wait(30), self.err.read_text()


@pytest.fixture
def running(sidecar, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN)
    made = sidecar(BILLING_PLAN=plan, PLAN=plan).start()
    made.wait_up()
    made.billing_url()  # commands find its address in the data directory, where there is none until it listens
    return made


@pytest.fixture
def tails(tmp_path, running):
    made = []

    def tail(*arguments):
        made.append(Tail(tmp_path / f"tail-{len(made)}", running, *arguments))
        return made[-1]

    yield tail
    for one in made:
        one.process.kill()
        one.process.wait(10)


def say(running, conversation, customer="acme"):
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "the secret word is xyzzy"}]}
    headers = {"authorization": "Bearer x", "x-session-id": conversation, "x-customer-id": customer}
    httpx.post(running.url + "/v1/chat/completions", json=body, headers=headers).raise_for_status()
    wait_for("the session", lambda: running.session("conversation", conversation))


def tell(running, ident, conversation, **what):
    alias = {"kind": "conversation", "value": conversation}
    assert running.signal(id=ident, source="crm", alias=alias, **what).status_code == 202


def test_tail_follows_sessions_and_money_until_ctrl_c(running, tails):
    sessions = tails("--since", "1h", "--interval", "0.1", "--json")
    money = tails("--billing", "--since", "1h", "--interval", "0.1", "--json")
    only = tails("--customer", "globex", "--since", "1h", "--json")
    say(running, "c-1")
    say(running, "c-2", "globex")
    tell(running, "1", "c-1", outcome="RESOLVED", reason="the customer said so")
    wait_for("the first row", lambda: len(money.events()) == 1)
    wait_for("all moves", lambda: len(sessions.events()) == 4)
    wait_for("the other customer's", only.events)
    shown, code, said = sessions.interrupt()
    assert (code, "4 events: 2 AI_HANDLING, 1 RESOLVED, 1 RESOLVED_PENDING" in said) == (0, True)
    moves = [(one["conversation"], one["state"]) for one in shown]
    assert sorted(moves) == [
        ("c-1", "AI_HANDLING"), ("c-1", "RESOLVED"), ("c-1", "RESOLVED_PENDING"), ("c-2", "AI_HANDLING"),
    ]  # fmt: skip
    assert "xyzzy" not in sessions.out.read_text()
    shown, code, said = money.interrupt()
    assert (code, said.rstrip().endswith("1 event: 1 RESOLVED; +0.99 USD")) == (0, True)
    assert [one["conversation"] for one in shown] == ["c-1"]
    shown, code, _ = only.interrupt()
    assert ([one["conversation"] for one in shown], code) == (["c-2"], 0)


def test_what_was_charged_is_found_explained_and_taken_back_and_the_doctor_is_content(running):
    for name in ("c-1", "c-2", "c-3"):
        say(running, name)
        tell(running, name, name, outcome="RESOLVED", reason="the customer said so")
    rows = wait_for("the ledger", lambda: len(found := ledger(running.billing_url())) == 3 and found)
    period = rows[0]["time"][:7]
    first = json.loads(command(running, "sessions", "list", "--limit", "2", "--state", "RESOLVED", "--json"))
    assert [one["conversation"] for one in first["sessions"]] == ["c-3", "c-2"]
    assert "total  2.97 USD" in command(running, "invoice", "acme", "--period", period)
    disputed = rows[0]["id"]
    decide = ("outcomes", "reverse", disputed, "--actor", "ann", "--reason", "disputed")
    assert "--yes" in command(running, *decide, code=2)
    assert json.loads(command(running, *decide, "--yes", "--json"))["kind"] == "reverse"
    assert json.loads(command(running, "invoice", "acme", "--period", period, "--json"))["total"] == "1.98"
    found = json.loads(command(running, "doctor", "--json"))
    assert found["fine"] is True
    parts = {one["part"]: one["says"] for one in found["findings"]}
    assert "a sidecar runs with" in parts["ports"], "it is beside itself, and not in its own way"
    shell = f"'{BINARY}' sessions list | grep -c c-1; '{BINARY}' run --settings --json | head -1"
    argv = ["bash", "-o", "pipefail", "-c", shell]
    ended = subprocess.run(argv, env=environ(running), capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.stderr) == ("1\n[\n", "")

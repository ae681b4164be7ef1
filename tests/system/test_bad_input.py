"""Wrong settings, wrong plans, parts that are down: a clear word, and traffic flows."""

import socket
import subprocess
import sys

import httpx
import pytest
from harness import ROOT, Billing, Process, ledger, wait_for
from ports import held_port

from sidecar.embedded.redis import server_binary


def run(tmp_path, **environ):
    env = {"PATH": "/usr/bin:/bin", "SIDECAR_DATA_DIR": str(tmp_path / "data")}
    env |= {f"SIDECAR_{name}": value for name, value in environ.items()}
    return subprocess.run(
        [sys.executable, "-m", "sidecar", "run"],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def nobody():
    with held_port() as port:
        yield port


def say(url, conversation="c-1", text="password"):
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
    headers = {"authorization": "Bearer x", "x-session-id": conversation, "x-customer-id": "acme"}
    return httpx.post(url + "/v1/chat/completions", json=body, headers=headers)


def test_every_wrong_setting_is_named_at_once_and_the_exit_code_is_2(tmp_path):
    ended = run(tmp_path, UPSTREAM="api.openai.com", MODE="dry", QUEUE_BYTES="lots")
    assert ended.returncode == 2
    for name in ("SIDECAR_UPSTREAM", "SIDECAR_MODE", "SIDECAR_QUEUE_BYTES"):
        assert name in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_bad_plan_is_refused_with_all_its_errors_by_line(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "rate_plan:\n  name: x\n  billing_mode: PREPAID\n  metrix: []\n  session_config: {timeout_minutes: -1}\n"
    )
    ended = run(tmp_path, PLAN=str(plan))
    assert ended.returncode == 2
    for line in (3, 4, 5):
        assert f"plan.yaml:{line}:" in ended.stderr


def test_a_listener_that_is_taken_is_named(tmp_path):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        address = f"127.0.0.1:{held.getsockname()[1]}"
        ended = run(tmp_path, UPSTREAM="http://127.0.0.1:1", LISTEN=address, ADMIN_LISTEN="127.0.0.1:0")
    assert ended.returncode == 1
    assert address in ended.stderr


def test_garbage_is_answered_400_and_an_unreachable_upstream_502_in_plain_words(sidecar, nobody):
    running = sidecar(UPSTREAM=f"http://127.0.0.1:{nobody}").start()
    answer = say(running.url)
    assert answer.status_code == 502
    assert answer.headers["x-sidecar-error"]
    assert "<html" not in answer.text.lower()
    host, _, port = running.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_redis_and_billing_down_at_the_start_cost_nothing(sidecar, tmp_path):
    with held_port() as cache, held_port() as ledger_port:
        running = sidecar(REDIS_URL=f"redis://127.0.0.1:{cache}", BILLING_URL=f"http://127.0.0.1:{ledger_port}").start()
        assert say(running.url).status_code == 200
        for part in ("redis", "billing"):
            wait_for(f"{part} to be reported", lambda part=part: running.parts()[part]["state"] == "down")
        assert httpx.get(running.admin + "/livez").status_code == 200
        assert httpx.get(running.admin + "/readyz").status_code == 200
        signal = {"id": "1", "source": "crm", "alias": {"kind": "conversation", "value": "c-1"}, "outcome": "RESOLVED"}
        accepted = running.signal(**signal)
        assert accepted.status_code == 202
        again = running.signal(**signal)
        assert (again.status_code, again.json()["duplicate"]) == (202, True)
        argv = [str(server_binary()), "--port", str(cache), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
        redis = Process([*argv, "--save", "", "--appendonly", "yes"], log=tmp_path / "redis.log")
        billing = Billing(tmp_path / "billing", BILLING_LISTEN=f"127.0.0.1:{ledger_port}")
        try:
            rows = wait_for("what waited, in the ledger", lambda: ledger(billing.url))
            assert [(row["data"]["conversation"], row["data"]["state"]) for row in rows] == [("c-1", "RESOLVED")]
            for part in ("redis", "billing"):
                wait_for(f"{part} to be reported", lambda part=part: running.parts()[part]["state"] == "ok")
        finally:
            running.close()
            billing.close()
            redis.end()


def test_a_billing_api_that_comes_late_gets_everything(sidecar, tmp_path, nobody):
    running = sidecar(BILLING_URL=f"http://127.0.0.1:{nobody}").start()
    running.wait_up("observer", "redis")
    say(running.url)
    signal = {"id": "1", "source": "crm", "alias": {"kind": "conversation", "value": "c-1"}, "outcome": "RESOLVED"}
    assert running.signal(**signal).status_code == 202
    wait_for("the outcome to be finalized", lambda: running.session("conversation", "c-1")["state"] == "RESOLVED")
    wait_for("billing to be reported", lambda: running.parts()["billing"]["state"] == "down")
    billing = Billing(tmp_path / "billing", BILLING_LISTEN=f"127.0.0.1:{nobody}")
    try:
        rows = wait_for("the outcome in the ledger", lambda: ledger(billing.url))
        assert [row["data"]["conversation"] for row in rows] == ["c-1"]
    finally:
        billing.close()


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b'{"id": "1", "source": "crm", "outcome": "RESOLVED"}', 422), (b"x" * 70_000, 413)],
)
def test_a_bad_signal_is_a_problem_that_says_what_to_change(sidecar, body, status):
    running = sidecar().start()
    running.wait_up("observer")
    answer = httpx.post(running.admin + "/v1/signals", content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json()["detail"]


def test_more_signals_than_may_wait_for_a_session_are_refused_before_they_are_taken(sidecar):
    running = sidecar().start()
    running.wait_up()

    def escalate(number, conversation="never-begun"):
        alias = {"kind": "conversation", "value": conversation}
        return running.signal(id=f"s-{number}", source="crm", alias=alias, escalated_to_human=True)

    assert {escalate(number).status_code for number in range(64)} == {202}
    refused = escalate(64)
    assert refused.status_code == 429
    assert refused.headers["content-type"].startswith("application/problem+json")
    assert refused.headers["retry-after"] == "60"
    assert "64 signals wait already" in refused.json()["detail"]
    assert escalate(0).json()["duplicate"]
    assert escalate(64, "another").status_code == 202

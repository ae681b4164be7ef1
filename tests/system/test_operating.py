"""What operators do: ask, explain, check, reload, try in shadow, run intake-only, drain, start again."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile

import httpx
import pytest
from harness import ROOT, ledger, wait_for


def say(url, conversation="c-1", text="password", **headers):
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
    sent = {"authorization": "Bearer x", "x-session-id": conversation, "x-customer-id": "acme"} | headers
    return httpx.post(url + "/v1/chat/completions", json=body, headers=sent).raise_for_status()


def command(running, *arguments, code=0):
    env = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")} | running.env
    env |= {"SIDECAR_ADMIN_LISTEN": running.admin.removeprefix("http://"), "COLUMNS": "200"}
    argv = [sys.executable, "-m", "sidecar", *arguments]
    ended = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == code, ended.stderr + ended.stdout
    return ended.stdout


def resolve(running, conversation, number="1"):
    alias = {"kind": "conversation", "value": conversation}
    return running.signal(id=number, source="crm", alias=alias, outcome="RESOLVED", reason="the customer said so")


def test_sessions_are_listed_explained_verified_and_evaluated_and_the_doctor_is_content(sidecar, tmp_path):
    running = sidecar().start()
    running.wait_up()
    say(running.url, "c-1")
    say(running.url, "c-2")
    wait_for("both sessions", lambda: running.session("conversation", "c-1") and running.session("conversation", "c-2"))
    assert resolve(running, "c-1").status_code == 202
    wait_for("the resolution", lambda: running.session("conversation", "c-1")["state"] == "RESOLVED")
    listed = json.loads(command(running, "sessions", "list", "--json"))["sessions"]
    assert {(one["conversation"], one["state"]) for one in listed} == {("c-1", "RESOLVED"), ("c-2", "AI_HANDLING")}
    assert "c-2" in command(running, "sessions", "list", "--state", "AI_HANDLING")
    shown = command(running, "sessions", "explain", "conversation:c-1")
    assert "RESOLVED" in shown
    assert "the customer said so" in shown
    command(running, "sessions", "explain", "conversation:nobody", code=1)
    wait_for("the outcome", lambda: ledger(running.billing_url()))
    verified = command(running, "sessions", "verify", "conversation:c-1", "--billing", running.billing_url())
    assert "agrees with the ledger's 1 entry" in verified
    (tmp_path / "crm.csv").write_text("conversation,outcome\nc-1,resolved\nc-2,ESCALATED_TO_HUMAN\n")
    evaluated = json.loads(command(running, "plan", "evaluate", "--labels", str(tmp_path / "crm.csv"), "--json"))
    assert evaluated["matrix"] == {"RESOLVED": {"RESOLVED": 1}, "ESCALATED_TO_HUMAN": {"OPEN": 1}}
    assert "redis" in command(running, "doctor")


def test_the_proxy_and_the_observer_are_measured(sidecar):
    running = sidecar().start()
    running.wait_up()
    say(running.url)
    wait_for("the session", lambda: running.session("conversation", "c-1"))
    label = 'sidecar_tenant_count{tenant="default",what="opened"}'
    text = wait_for(
        "the counters", lambda: f"{label} 1.0" in (found := httpx.get(running.admin + "/metrics").text) and found
    )
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["sidecar_requests_total"]) == 1
    assert float(values['sidecar_responses_total{class="2xx"}']) == 1
    assert float(values['sidecar_part_up{part="redis"}']) == 1
    assert float(values[label]) == 1


def test_shadow_outcomes_say_so_and_are_not_invoiced_and_a_candidate_plan_is_compared(sidecar, tmp_path):
    plan = tmp_path / "candidate.yaml"
    plan.write_text(
        "rate_plan:\n  name: stricter\n  signals:\n"
        "    - {id: asked, on: request, set: {escalated_to_human: true},\n"
        "       conditions: [{field: text, operator: EQUALS, value: password}]}\n"
    )
    running = sidecar(MODE="shadow", PLAN_CANDIDATE=plan).start()
    running.wait_up()
    say(running.url)
    wait_for("the session", lambda: running.session("conversation", "c-1"))
    resolve(running, "c-1")
    billing = running.billing_url()
    [row] = wait_for("the outcome", lambda: ledger(billing))
    assert row["data"]["shadow"] is True
    period = {"period": row["time"][:7]}
    invoice = httpx.get(f"{billing}/v1/customers/acme/invoice", params=period).json()
    assert [float(line["quantity"]) for line in invoice["lines"]] == [0]
    summary = httpx.get(f"{billing}/v1/summary", params=period).json()
    assert summary["sessions"] == 0
    assert summary["shadow"]["sessions"] == 1
    found = wait_for(
        "the difference", lambda: (seen := httpx.get(running.admin + "/v1/candidate").json())["different"] and seen
    )
    assert found["matrix"] == {"RESOLVED": {"ESCALATED_TO_HUMAN": 1}}
    shown = command(running, "plan", "candidate")
    assert "c-1: RESOLVED (the customer said so), candidate ESCALATED_TO_HUMAN (asked)" in shown
    metric = 'sidecar_tenant_count{tenant="default",what="candidate_different"} 1.0'
    wait_for("the metric", lambda: metric in httpx.get(running.admin + "/metrics").text)
    assert [event["data"]["outcome"] for event in ledger(billing)] == ["RESOLVED"]


def test_without_an_upstream_signals_are_taken_for_sessions_of_others(sidecar, llm):
    serving = sidecar().start()
    serving.wait_up()
    say(serving.url)
    wait_for("the session", lambda: serving.session("conversation", "c-1"))
    intake = sidecar(REDIS_URL=f"unix://{serving.redis_socket()}", BILLING_URL=serving.billing_url())
    del intake.env["SIDECAR_UPSTREAM"]
    intake.start()
    intake.wait_up("observer", "redis")
    assert intake.urls == []
    assert resolve(intake, "c-1").status_code == 202
    wait_for("the outcome", lambda: ledger(serving.billing_url()))
    assert serving.session("conversation", "c-1")["state"] == "RESOLVED"


def test_a_changed_plan_is_for_new_sessions_and_a_broken_one_is_refused(sidecar, tmp_path):
    plan = tmp_path / "plan.yaml"
    good = (ROOT / "examples" / "plans" / "fin.yaml").read_text()
    plan.write_text(good)
    running = sidecar(PLAN=plan).start()
    running.wait_up("observer", "redis", "plan")
    say(running.url, "before")
    before = wait_for("the session", lambda: running.session("conversation", "before"))
    plan.write_text(good.replace("timeout_minutes: 60", "timeout_minutes: -60"))
    wait_for("the refusal", lambda: running.parts()["plan"]["state"] != "ok")
    shown = httpx.get(running.admin + "/v1/plan").json()
    assert shown["digest"] == before["plan"]["digest"]
    assert [problem.partition(": ")[2] for problem in shown["problems"]] == [
        "session_config.timeout_minutes: -60 is negative: amounts are 0 or more"
    ]
    assert 'sidecar_events_total{event="plan_refused"} 1.0' in httpx.get(running.admin + "/metrics").text
    assert "plan refused" in running.log()
    plan.write_text(good)
    wait_for("the old plan", lambda: running.parts()["plan"]["state"] == "ok")
    assert "right again" in running.log()
    plan.write_text(good.replace("timeout_minutes: 60", "timeout_minutes: 61"))
    wait_for("the new plan in force", lambda: "plan in force" in running.log())
    say(running.url, "after")
    after = wait_for("the session", lambda: running.session("conversation", "after"))
    assert after["plan"]["digest"] != before["plan"]["digest"]
    assert running.session("conversation", "before")["plan"] == before["plan"]


def test_sighup_has_the_plan_read_again_whatever_its_file_looks_like(sidecar, tmp_path):
    """The file is written in place, with its size and time as before, so that only SIGHUP can tell."""
    plan = tmp_path / "plan.yaml"
    text = (ROOT / "examples" / "plans" / "fin.yaml").read_text()
    plan.write_text(text)
    looks = plan.stat()
    running = sidecar(PLAN=plan).start()
    running.wait_up("observer", "redis", "plan")
    say(running.url, "before")
    before = wait_for("the session", lambda: running.session("conversation", "before"))
    started = [line for line in running.log().splitlines() if '"child_started"' in line and '"observer"' in line]
    observer = json.loads(started[-1])["pid"]
    os.kill(observer, signal.SIGSTOP)  # it must not look between the two
    plan.write_text(text.replace("timeout_minutes: 60", "timeout_minutes: 61"))
    os.utime(plan, ns=(looks.st_atime_ns, looks.st_mtime_ns))
    os.kill(observer, signal.SIGCONT)
    assert "plan in force" not in running.log()
    running.process.kill(signal.SIGHUP)
    wait_for("the new plan in force", lambda: "plan in force" in running.log())
    say(running.url, "after")
    after = wait_for("the session", lambda: running.session("conversation", "after"))
    assert after["plan"]["digest"] != before["plan"]["digest"]


def test_embedded_data_outlives_a_restart(sidecar):
    running = sidecar().start()
    running.wait_up()
    say(running.url, "c-1")
    say(running.url, "c-2")
    wait_for("the sessions", lambda: running.session("conversation", "c-1") and running.session("conversation", "c-2"))
    resolve(running, "c-1")
    wait_for("the outcome", lambda: ledger(running.billing_url()))
    assert running.stop() == 0
    running.start()
    running.wait_up()
    assert running.session("conversation", "c-2")["state"] == "AI_HANDLING"
    assert len(ledger(running.billing_url())) == 1


def test_a_data_directory_has_one_sidecar_and_is_free_as_soon_as_that_one_is_dead(sidecar):
    running = sidecar().start()
    running.wait_up("observer")
    with tempfile.TemporaryDirectory(prefix="sc-", dir="/dev/shm") as other_queue_dir:
        refused = subprocess.run(
            [sys.executable, "-m", "sidecar", "run"],
            env={**os.environ, **running.env, "SIDECAR_QUEUE_DIR": other_queue_dir},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert refused.returncode == 2
    assert f"in use by another sidecar (process {running.process.pid} " in refused.stderr
    observer = running.parts()["observer"]["pid"]
    os.kill(observer, signal.SIGSTOP)  # what the dead one leaves behind for a moment must not hold the directory
    try:
        running.process.kill()
        running.process.popen.wait(10)
        with (running.data_dir / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(observer, signal.SIGCONT)


def test_sigterm_hands_over_what_was_seen(sidecar):
    running = sidecar().start()
    running.wait_up()
    for number in range(20):
        say(running.url, f"c-{number}")
    assert running.stop() == 0
    running.start()
    running.wait_up()
    listed = httpx.get(running.admin + "/v1/sessions").json()["sessions"]
    assert len(listed) == 20


def test_the_admin_token_guards_the_api_and_not_the_probes(sidecar):
    running = sidecar(ADMIN_TOKEN="s3cret").start()
    running.wait_up()
    assert httpx.get(running.admin + "/v1/sessions").status_code == 401
    assert httpx.get(running.admin + "/readyz").status_code == 200
    allowed = httpx.get(running.admin + "/v1/sessions", headers={"authorization": "Bearer s3cret"})
    assert allowed.status_code == 200


def test_the_admin_api_says_how_it_wants_to_be_asked(sidecar):
    running = sidecar().start()
    running.wait_up()
    refused = httpx.get(running.admin + "/v1/signals")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    unknown = httpx.get(running.admin + "/v1/sessions", params={"state": "OPEN"})
    assert unknown.status_code == 400
    assert "AI_HANDLING" in unknown.json()["detail"]
    assert httpx.get(running.admin + "/v1/sessions", params={"state": "RESOLVED"}).json() == {
        "sessions": [],
        "next": None,
    }
    assert httpx.get(running.admin + "/nothing").json()["detail"] == "there is nothing at /nothing"


@pytest.mark.parametrize("key", ["header:x-ticket", "body:metadata.ticket"])
def test_the_deployments_own_session_key_comes_first(sidecar, key):
    running = sidecar(SESSION_KEYS=key).start()
    running.wait_up()
    body = {
        "model": "gpt-4o",
        "metadata": {"ticket": "t-77"},
        "messages": [{"role": "user", "content": "password"}],
    }
    headers = {"authorization": "Bearer x", "x-session-id": "c-1", "x-ticket": "t-77"}
    httpx.post(running.url + "/v1/chat/completions", json=body, headers=headers).raise_for_status()
    found = wait_for("the session", lambda: running.session("conversation", "t-77"))
    assert found["conversation"] == "t-77"
    assert running.session("conversation", "c-1")["id"] == found["id"]

"""Redis loses everything, or stands still: nothing is charged twice, nothing expires that traffic keeps alive."""

import asyncio
import os
import signal
import time

import httpx
import pytest
import redis
from harness import Billing, conversations, ledger, wait_for
from talk import STATES, Talk, hold

PLAN = """
rate_plan:
  name: "loss"
  billing_mode: POSTPAID
  metrics: [{id: resolution, name: R, unit: resolution, aggregation: COUNT, event_field: outcome}]
  pricing: {model: PER_UNIT, rate: 0.99, currency: USD}
  session_config: {timeout_minutes: %s}
"""


@pytest.fixture
def running(sidecar, tmp_path):
    billing = Billing(tmp_path / "billing")

    def start(timeout_minutes):
        plan = tmp_path / "plan.yaml"
        plan.write_text(PLAN % timeout_minutes)
        one = sidecar(PLAN=plan, BILLING_URL=billing.url).start()
        one.wait_up()
        one.billing = billing
        return one

    yield start
    billing.close()


def talk_all(url, names):
    talks = [Talk(f"{name}-{kind}", kind, "acme") for name in names for kind in STATES]

    async def run():
        await asyncio.gather(*(hold(talk, url) for talk in talks))

    asyncio.run(run())
    return talks


def flush(running):
    with redis.Redis(unix_socket_path=str(running.redis_socket())) as client:
        client.flushall()


def metric(running, name):
    lines = httpx.get(running.admin + "/metrics").raise_for_status().text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def states_by_conversation(rows):
    found = {}
    for row in rows:
        found.setdefault(row["data"]["conversation"], []).append((row["data"]["revision"], row["data"]["state"]))
    return found


def test_flushall_in_the_middle_is_rebuilt_from_the_journal(running):
    one = running(0.1)
    before = talk_all(one.url, ["a", "b"])
    wait_for("the first outcomes", lambda: len(ledger(one.billing.url)) >= 2)
    flush(one)
    talks = before + talk_all(one.url, ["c"])
    rows = wait_for("all outcomes", lambda: len(found := ledger(one.billing.url)) >= len(talks) and found)
    assert states_by_conversation(rows) == {talk.conversation: [(0, STATES[talk.kind])] for talk in talks}


def test_a_flushed_redis_and_a_lost_journal_charge_nothing_twice_and_say_so(running):
    one = running(0.1)
    before = talk_all(one.url, ["a", "b"])
    wait_for("the first outcomes", lambda: len(ledger(one.billing.url)) >= len(before))
    parts = one.parts()
    for path in one.data_dir.glob("journal.sqlite3*"):
        path.unlink()
    flush(one)
    os.kill(parts["observer"]["pid"], signal.SIGKILL)
    wait_for("a new observer", lambda: one.parts()["observer"]["pid"] not in {0, None, parts["observer"]["pid"]})
    one.wait_up()
    after = talk_all(one.url, ["c"])
    wanted = {talk.conversation for talk in after}
    rows = wait_for(
        "the later outcomes",
        lambda: conversations(found := ledger(one.billing.url)) >= wanted and found,
    )
    assert states_by_conversation(rows) == {talk.conversation: [(0, STATES[talk.kind])] for talk in before + after}
    assert metric(one, 'sidecar_events_total{event="journal_lost"}') >= 1


def test_a_journal_lost_while_in_use_is_begun_anew_and_said_so(running):
    one = running(60)
    for path in one.data_dir.glob("journal.sqlite3*"):
        path.unlink()
    talks = [talk for talk in talk_all(one.url, ["a"]) if talk.kind != "abandoned"]
    rows = wait_for("the outcomes", lambda: len(found := ledger(one.billing.url)) >= len(talks) and found)
    assert states_by_conversation(rows) == {talk.conversation: [(0, STATES[talk.kind])] for talk in talks}
    wait_for("the report", lambda: metric(one, 'sidecar_events_total{event="journal_recovered"}') >= 1)


def test_the_hash_key_outlives_the_data_and_a_replica_with_another_one_takes_it_over(running):
    one = running(60)
    with redis.Redis(unix_socket_path=str(one.redis_socket())) as client:
        name = "sidecar:{default}:hash-key"
        key = client.get(name)
        flush(one)
        assert wait_for("the key", lambda: client.get(name)) == key
        pid = one.parts()["observer"]["pid"]
        client.flushall()
        client.set(name, "ab" * 32)
        wait_for("a new observer", lambda: one.parts()["observer"]["pid"] not in {0, None, pid})
        one.wait_up()
        assert client.get(name) == b"ab" * 32
    talk_all(one.url, ["a"])
    wait_for("the outcomes", lambda: len(ledger(one.billing.url)) >= 2)


def test_a_redis_out_of_memory_is_shown_and_waited_out(running):
    one = running(60)
    with redis.Redis(unix_socket_path=str(one.redis_socket())) as client:
        client.config_set("maxmemory", 1)
        talks = [talk for talk in talk_all(one.url, ["a"]) if talk.kind != "abandoned"]
        wait_for("the refusal to be shown", lambda: one.parts()["redis"]["state"] == "down")
        client.config_set("maxmemory", 0)
    one.wait_up("redis")
    rows = wait_for("the outcomes", lambda: len(found := ledger(one.billing.url)) >= len(talks) and found)
    assert states_by_conversation(rows) == {talk.conversation: [(0, STATES[talk.kind])] for talk in talks}


def test_a_redis_that_stands_still_longer_than_the_timeout_expires_nothing_that_traffic_keeps_alive(running):
    one = running(0.06)  # 3.6 s
    pid = one.redis_pid()
    url = one.url

    def say(conversation, number):
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": f"password {number}"}]}
        headers = {"authorization": "Bearer x", "x-session-id": conversation, "x-customer-id": "acme"}
        httpx.post(url + "/v1/chat/completions", json=body, headers=headers).raise_for_status()

    say("kept-alive", 0)
    say("left-alone", 0)
    wait_for("both sessions", lambda: one.session("conversation", "left-alone"))
    os.kill(pid, signal.SIGSTOP)
    try:
        for number in range(1, 9):
            say("kept-alive", number)
            time.sleep(1)
    finally:
        os.kill(pid, signal.SIGCONT)
    say("kept-alive", 9)
    rows = wait_for("both outcomes", lambda: len(found := ledger(one.billing.url)) >= 2 and found)
    assert states_by_conversation(rows) == {
        "kept-alive": [(0, "INCONCLUSIVE")],
        "left-alone": [(0, "INCONCLUSIVE")],
    }
    assert {row["data"]["conversation"]: row["data"]["turns"] for row in rows} == {"kept-alive": 10, "left-alone": 1}

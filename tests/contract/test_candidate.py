"""A candidate plan beside the live one on a real server: it sees the same, decides by itself, and posts nothing."""

from __future__ import annotations

import json

import pytest
import redis.asyncio as redis_async

from sidecar import identity
from sidecar.intake.signal import Signal
from sidecar.observer.observe import Observing
from sidecar.observer.reader import RawExchange
from sidecar.plantest.conversation import Request, Step
from sidecar.plantest.traffic import Talk
from sidecar.policy.current import CurrentPlan
from sidecar.policy.effect import Effect
from sidecar.policy.loading import load_plan
from sidecar.sessions import candidate as candidate_module
from sidecar.sessions.candidate import Candidate
from sidecar.sessions.store import Store
from sidecar.wire.records import EndFlag

TENANT, T0, MINUTE = "acme", 1_795_000_000_000, 60_000
LIVE = "rate_plan: {name: live, session_config: {timeout_minutes: 30}}"
CANDIDATE = """
rate_plan:
  name: candidate
  session_config: {timeout_minutes: 60, inconclusive_policy: CHARGE}
  signals:
    - id: thanks
      on: request
      conditions: [{field: text, operator: MATCHES, value: "(?i)thanks"}]
      set: {outcome: RESOLVED}
    - {id: human, on: tool_call, conditions: [{field: name, operator: EQUALS, value: transfer_to_human}],
       set: {escalated_to_human: true}}
"""


class Deployment:
    """The live side and the candidate, fed as the observer feeds them."""

    def __init__(self, redis, path):
        path.write_text(CANDIDATE)
        self.path = path
        self.counts = {}
        self.live = Store(redis, TENANT)
        self.plan = CurrentPlan(load_plan(LIVE.encode(), "live"), None)
        self.observing = Observing(TENANT, b"k", "", "", False, lambda name: self.count(name, 1))
        plan = CurrentPlan(load_plan(CANDIDATE.encode(), "c"), path)
        self.candidate = Candidate(self.live, plan, self.observing.quietly(), producer="journal", count=self.count)
        self.talks, self.sequence, self.signals = {}, 0, 0

    def count(self, event, n):
        self.counts[event] = self.counts.get(event, 0) + n

    async def say(self, at, conversation, text, *tools):
        talk = self.talks.setdefault(conversation, Talk("openai.chat", {"x-session-id": conversation}))
        step = Step.model_validate({"user": text, "agent": "Fine.", "tools": [{"name": name} for name in tools]})
        for exchange in talk.turn(step):
            self.sequence += 1
            raw = RawExchange(
                "queue", self.sequence, self.sequence, 0, T0 + at, T0 + at + 10, exchange.request, exchange.response,
                EndFlag(0), finished=True,
            )  # fmt: skip
            observation = self.observing.observe(raw, self.plan.loaded)
            await self.live.apply_many([(observation, self.sequence - 1)])
            self.candidate.exchange(raw)

    async def signal(self, at, conversation, event):
        self.signals += 1
        signal = Signal(
            "journal", self.signals, TENANT, "crm", f"s{self.signals}", T0 + at, Effect("crm", "signal", event),
            self.plan.loaded.terms, alias=identity.key(TENANT, "conversation", conversation),
        )  # fmt: skip
        await self.live.apply_many([(signal, self.signals - 1)])
        self.candidate.signal(signal)

    async def pass_time(self, at):
        while await self.candidate.step():
            pass
        await self.live.heartbeat("journal", T0 + at, T0 + at)
        await self.candidate.beat(T0 + at, T0 + at)
        for store in (self.live, self.candidate.store):
            while (await store.sweep()).more:
                pass
        await self.candidate.step()

    async def outbox(self, store):
        return await store.redis.xlen(store.key("outbox"))


@pytest.fixture
async def deployment(redis_server, tmp_path):
    client = redis_async.Redis(unix_socket_path=str(redis_server.socket))
    yield Deployment(client, tmp_path / "candidate.yaml")
    await client.aclose()


async def test_the_same_traffic_is_judged_twice_and_the_differences_are_counted_and_listed(deployment):
    await deployment.say(0, "same-human", "Help", "transfer_to_human")
    await deployment.say(0, "silent", "Where is it?")
    await deployment.say(0, "thankful", "Where is it?")
    await deployment.say(1000, "thankful", "Thanks!")
    await deployment.say(0, "told", "Where is it?")
    await deployment.signal(2000, "told", "resolve")
    await deployment.pass_time(45 * MINUTE)
    found = (await deployment.candidate.report()).to_dict()
    assert (found["same"], found["pending"]) == (2, 1)  # the candidate still waits for `silent`
    assert found["matrix"]["INCONCLUSIVE"] == {"RESOLVED": 1}
    await deployment.pass_time(90 * MINUTE)
    report = await deployment.candidate.report()
    found = report.to_dict()
    assert (found["same"], found["different"], found["pending"], found["dropped"]) == (2, 2, 0, 0)
    assert found["matrix"] == {
        "INCONCLUSIVE": {"RESOLVED": 2}, "ESCALATED_TO_HUMAN": {"ESCALATED_TO_HUMAN": 1}, "RESOLVED": {"RESOLVED": 1},
    }  # fmt: skip
    differing = {each["conversation"]: each for each in found["differences"]}
    assert set(differing) == {"silent", "thankful"}
    assert differing["thankful"]["candidate"]["rules"] == ["thanks"]
    assert differing["silent"]["candidate"]["confirmation"] == "ASSUMED"
    assert json.dumps(found)


async def test_nothing_of_the_candidate_is_posted_and_the_live_side_is_as_without_it(deployment):
    await deployment.say(0, "c-1", "Thanks!")
    await deployment.say(0, "c-2", "Hello")
    await deployment.pass_time(90 * MINUTE)
    assert await deployment.outbox(deployment.candidate.store) == 0
    assert await deployment.outbox(deployment.live) == 2
    views = await deployment.live.list()
    assert {view.state for view in views} == {"INCONCLUSIVE"}
    assert {view.terms.plan for view in views} == {"live"}
    judged = await deployment.candidate.store.list()
    assert {view.terms.plan for view in judged} == {"candidate"}
    assert {view.id for view in judged} == {view.id for view in views}
    assert deployment.counts == {}
    request = Talk("openai.chat", {}).raw(Request(path="/unknown"))
    raw = RawExchange("queue", 99, 99, 0, T0, T0, request.request, request.response, EndFlag(0), finished=True)
    assert deployment.observing.observe(raw, deployment.plan.loaded) is None
    deployment.candidate.exchange(raw)
    assert deployment.counts == {"unidentified": 1}  # counted for the live side, once
    assert (await deployment.live.counters())["opened"] == 2


async def test_what_waits_is_bounded_and_what_is_dropped_is_counted_and_missed_only_there(deployment, monkeypatch):
    monkeypatch.setattr(candidate_module, "WAITING_MAX", 3)
    for number in range(5):
        await deployment.say(number, f"c-{number}", "Hello")
    assert (deployment.candidate.dropped, deployment.counts["candidate_dropped"]) == (2, 2)
    await deployment.say(10, "c-9", "Hello")
    await deployment.pass_time(20)
    await deployment.say(30, "c-10", "Hello")  # the gap is no obstacle
    await deployment.pass_time(90 * MINUTE)
    found = (await deployment.candidate.report()).differences
    assert (found.different, found.only_live, found.only_candidate) == (4, 3, 0)


async def test_facts_come_again_when_redis_fails_and_count_once(deployment, redis_server):
    await deployment.say(0, "c-1", "Hello")
    await deployment.candidate.step()
    await deployment.say(10, "c-1", "Thanks!")
    waiting = list(deployment.candidate._waiting)
    await deployment.candidate.step()
    deployment.candidate._waiting.extend(waiting)  # as if the answer had been lost
    await deployment.pass_time(90 * MINUTE)
    [view] = await deployment.candidate.store.list()
    assert (view.turns, view.revision) == (2, 0)


async def test_a_changed_candidate_begins_anew_and_a_broken_one_is_refused(deployment):
    await deployment.say(0, "c-1", "Hello")
    await deployment.pass_time(90 * MINUTE)
    deployment.path.write_text("rate_plan: {nam: x}")
    deployment.candidate.follow_plan()
    report = await deployment.candidate.report()
    assert (deployment.counts["candidate_refused"], report.plan.loaded.name) == (1, "candidate")
    assert any("did you mean name?" in problem for problem in report.to_dict()["problems"])
    deployment.path.write_text(CANDIDATE.replace("name: candidate", "name: second"))
    deployment.candidate.follow_plan()
    assert (await deployment.candidate.report()).differences.different == 0  # the first one's sessions are not its own
    await deployment.say(91 * MINUTE, "c-2", "Hello")
    await deployment.pass_time(200 * MINUTE)
    assert (await deployment.candidate.report()).differences.different == 1


async def test_an_exchange_that_cannot_be_judged_stops_nothing(deployment, monkeypatch):
    monkeypatch.setattr(deployment.candidate._observing, "observe", lambda *_: 1 / 0)
    await deployment.say(0, "c-1", "Hello")
    assert deployment.counts == {"candidate_failed": 1}
    assert len(await deployment.live.list()) == 1


async def test_signals_go_on_after_a_restart_and_two_of_the_same_instant_both_count(deployment):
    await deployment.say(0, "c-1", "Hello")
    await deployment.say(0, "c-2", "Hello")
    await deployment.signal(1000, "c-1", "resolve")
    await deployment.signal(1000, "c-2", "escalate")
    await deployment.pass_time(2000)
    plan = deployment.candidate.plan
    deployment.candidate = Candidate(deployment.live, plan, deployment.observing.quietly(), producer="journal")
    await deployment.signal(3000, "c-1", "escalate")
    await deployment.pass_time(4000)
    views = {view.conversation: view.state for view in await deployment.candidate.store.list()}
    assert views == {"c-1": "NOT_BILLABLE", "c-2": "NOT_BILLABLE"}
    assert (await deployment.candidate.report()).differences.same == 2

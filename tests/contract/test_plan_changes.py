"""A plan that changes under open sessions: each is judged to its end by the terms and rules under which it opened."""

from __future__ import annotations

import os

import pytest
import redis.asyncio as redis_async

from sidecar.observer.observation import from_json
from sidecar.observer.observe import Observing
from sidecar.observer.reader import RawExchange
from sidecar.plantest.conversation import Step
from sidecar.plantest.traffic import Talk
from sidecar.policy.current import FORMER_MAX, CurrentPlan
from sidecar.policy.loading import load_plan
from sidecar.sessions.store import Store
from sidecar.wire.records import EndFlag

T0 = 1_795_000_000_000
PLAN = """
rate_plan:
  name: {name}
  session_config: {{settle_minutes: {settle}}}
  signals:
    - id: {name}_done
      on: tool_call
      conditions: [{{field: name, operator: EQUALS, value: {tool}}}]
      set: {{outcome: {outcome}}}
"""


def written(name, tool="finish", outcome="RESOLVED", settle=0):
    return PLAN.format(name=name, tool=tool, outcome=outcome, settle=settle)


class Deployment:
    def __init__(self, redis, path):
        self.path = path
        path.write_text(written("first"))
        self.plan = CurrentPlan(load_plan(path.read_bytes(), str(path)), path)
        self.store = Store(redis, "acme")
        self.observing = Observing("acme", b"k", "", "", False, lambda _: None)
        self.talks, self.sequence = {}, 0

    def change(self, text):
        self.path.write_text(text)
        os.utime(self.path, ns=(0, self.sequence + hash(text) % 10**9))
        return self.plan.refresh(force=True)

    async def say(self, conversation, *tools):
        talk = self.talks.setdefault(conversation, Talk("openai.chat", {"x-session-id": conversation}))
        text = f"message {self.sequence}"
        step = Step.model_validate({"user": text, "agent": "Fine.", "tools": [{"name": name} for name in tools]})
        for exchange in talk.turn(step):
            self.sequence += 1
            at = T0 + self.sequence * 1000
            raw = RawExchange(
                "queue", self.sequence, self.sequence, 0, at, at, exchange.request, exchange.response, EndFlag(0),
                finished=True,
            )  # fmt: skip
            observation = self.observing.observe(raw, self.plan.loaded, self.plan.former)
            kept = from_json(observation.to_json())  # as the journal gives it back
            assert kept == observation
            await self.store.apply_many([(kept, self.sequence - 1)])

    async def session(self, conversation):
        return await self.store.by_alias("conversation", conversation)


@pytest.fixture
async def deployment(redis_server, tmp_path):
    client = redis_async.Redis(unix_socket_path=str(redis_server.socket))
    yield Deployment(client, tmp_path / "plan.yaml")
    await client.aclose()


async def test_a_session_keeps_the_rules_and_terms_under_which_it_opened(deployment):
    await deployment.say("old")
    first = deployment.plan.loaded.digest
    assert deployment.change(written("second", tool="close", outcome="CLOSED", settle=10))
    await deployment.say("old", "close")  # the second plan's tool means nothing to it
    assert (await deployment.session("old")).state == "AI_HANDLING"
    await deployment.say("new", "finish")
    assert (await deployment.session("new")).state == "AI_HANDLING"
    await deployment.say("old", "finish")
    await deployment.say("new", "close")
    old, new = await deployment.session("old"), await deployment.session("new")
    assert (old.state, old.outcome, old.terms.digest) == ("RESOLVED", "RESOLVED", first)
    assert [item.rule for item in old.evidence] == ["first_done"]
    assert {entry["plan"] for entry in old.timeline} == {first}
    assert (new.state, new.outcome, new.terms.digest) == ("RESOLVED_PENDING", "CLOSED", deployment.plan.loaded.digest)


async def test_a_return_after_the_change_is_a_session_under_the_new_plan(deployment):
    await deployment.say("c", "finish")
    deployment.change(written("second", tool="close", outcome="CLOSED"))
    await deployment.say("c", "close")
    views = sorted(await deployment.store.list(), key=lambda view: view.started_ms)
    assert [(view.terms.plan, view.outcome) for view in views] == [("first", "RESOLVED"), ("second", "CLOSED")]


async def test_back_to_a_former_plan_and_a_change_that_says_the_same(deployment):
    await deployment.say("c")
    deployment.change(written("first") + "# a comment\n")
    await deployment.say("c", "finish")
    view = await deployment.session("c")
    assert (view.outcome, [item.rule for item in view.evidence]) == ("RESOLVED", ["first_done"])
    digests = [plan.digest for plan in deployment.plan.former]
    deployment.change(written("first"))
    commented = load_plan((written("first") + "# a comment\n").encode(), "p")
    assert [plan.digest for plan in deployment.plan.former] == [commented.digest]
    assert digests == [deployment.plan.loaded.digest]


async def test_former_plans_are_bounded_and_a_broken_file_changes_nothing(deployment):
    for number in range(FORMER_MAX + 3):
        assert deployment.change(written(f"plan{number}"))
    assert [plan.name for plan in deployment.plan.former] == [f"plan{n}" for n in range(FORMER_MAX + 1, 1, -1)]
    in_force = deployment.plan.loaded
    assert not deployment.change("rate_plan: {nam: x}")
    assert deployment.plan.loaded is in_force
    assert deployment.plan.refused == 1
    assert any("did you mean name?" in problem for problem in deployment.plan.problems)

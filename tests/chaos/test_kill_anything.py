"""kill -9 of the observer, the proxy, both and Redis, at random under load, behind a billing API that misbehaves.

Every conversation whose answers arrived must be posted, once, to its right state. The seed of a failing run is in the
test's name; give others with CHAOS_SEEDS=1,2,3.
"""

import asyncio
import os
import random
import signal
import threading

import anthropic
import httpx2
import openai
import pytest
from faults import FaultyFront
from harness import Billing, conversations, ledger, wait_for
from talk import STATES, Talk, hold

CONVERSATIONS = 60
AT_ONCE = 12
KILLING_SECONDS = 14.0
SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEEDS", "1").split(",")]
PLAN = """
rate_plan:
  name: "chaos"
  billing_mode: POSTPAID
  metrics: [{id: resolution, name: R, unit: resolution, aggregation: COUNT, event_field: outcome}]
  pricing: {model: PER_UNIT, rate: 0.99, currency: USD}
  session_config: {timeout_minutes: 0.3}
"""


class Killer(threading.Thread):
    """Kills parts of a sidecar at random until told to stop; a killed proxy is started again, as a cluster would."""

    def __init__(self, sidecar, seed):
        super().__init__(daemon=True)
        self.sidecar = sidecar
        self.random = random.Random(seed)
        self.done = threading.Event()
        self.killed = []
        self.failed = None

    def run(self):
        try:
            while not self.done.wait(self.random.uniform(0.5, 2.0)):
                target = self.random.choice(("observer", "proxy", "both", "redis"))
                self._kill(target)
                self.killed.append(target)
        except Exception as error:
            self.failed = error

    def _kill(self, target):
        if target == "redis":
            os.kill(wait_for("redis", self.sidecar.redis_pid), signal.SIGKILL)
            return
        if target in {"observer", "both"}:
            parts = wait_for("the admin address", self.sidecar.parts)
            if parts["observer"].get("pid"):
                try:
                    os.kill(parts["observer"]["pid"], signal.SIGKILL)
                except ProcessLookupError:
                    return
        if target in {"proxy", "both"}:
            self.sidecar.process.kill()
            self.sidecar.process.popen.wait(10)
            self.sidecar.start()


async def _hold(talk, url, gate, broken):
    async with gate:
        try:
            await hold(talk, url, retries=30)
        except (openai.OpenAIError, anthropic.AnthropicError, httpx2.HTTPError):
            # A stream cut in the middle is the caller's to repeat; this caller gives up.
            broken.add(talk.conversation)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_answered_conversation_is_posted_once_to_its_right_state(seed, sidecar, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN)
    billing = Billing(tmp_path / "billing")
    front = FaultyFront(billing.url, seed)
    running = sidecar(PLAN=plan, BILLING_URL=front.address)
    try:
        running.start()
        running.keep_ports()
        killer = Killer(running, seed)
        talks = _talks(seed)
        broken = asyncio.run(_load(talks, running.url, killer))
        assert killer.failed is None
        front.calm()
        answered = [talk for talk in talks if talk.conversation not in broken]
        assert len(answered) >= CONVERSATIONS // 2, f"too many streams were cut: {sorted(broken)}"
        wanted = {talk.conversation for talk in answered}
        rows = wait_for(
            "every answered conversation in the ledger",
            lambda: conversations(found := ledger(billing.url)) >= wanted and found,
            90,
        )
        _judge(talks, broken, rows, f"killed {killer.killed}, billing {front.seen}")
    finally:
        front.close()
        running.close()
        billing.close()


def _talks(seed):
    choose = random.Random(seed)
    return [
        Talk(
            f"k-{number}", choose.choice(list(STATES)), "acme", choose.choice(("openai", "anthropic")), number % 2 == 0
        )
        for number in range(CONVERSATIONS)
    ]


async def _load(talks, url, killer):
    broken, gate = set(), asyncio.Semaphore(AT_ONCE)
    killer.start()
    tasks = [asyncio.create_task(_hold(talk, url, gate, broken)) for talk in talks]
    await asyncio.sleep(KILLING_SECONDS)
    killer.done.set()
    await asyncio.to_thread(killer.join, 60)
    await asyncio.gather(*tasks)
    return broken


def _judge(talks, broken, rows, circumstances):
    by_conversation = {}
    for row in rows:
        by_conversation.setdefault(row["data"]["conversation"], []).append(row["data"])
    wrong = []
    for talk in talks:
        found = [(data["state"], data["revision"]) for data in by_conversation.get(talk.conversation, [])]
        if talk.conversation in broken:
            if len(found) > 1:
                wrong.append((talk.conversation, talk.kind, found))
        elif found != [(STATES[talk.kind], 0)]:
            wrong.append((talk.conversation, talk.kind, found))
        elif by_conversation[talk.conversation][0]["turns"] != talk.turns:
            wrong.append((talk.conversation, "turns", by_conversation[talk.conversation][0]["turns"], talk.turns))
    assert not wrong, f"{wrong} ({circumstances})"

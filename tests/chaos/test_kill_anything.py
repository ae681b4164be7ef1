"""kill -9 of the observer, the proxy, both and Redis, and FLUSHALL, at random under load that lasts as long as the
killing, behind a billing API that misbehaves.

Every conversation whose answers arrived must be posted, once, to its right state. What happened is asserted too: each
victim died, and each fault of the billing API was met, while conversations were under way. The seed of a failing run is
in the test's name; `make chaos SEEDS=1,2,3` (CHAOS_SEEDS) runs others.
"""

import asyncio
import itertools
import os
import random
import signal
import threading
import time
from dataclasses import dataclass, field

import agent as example
import anthropic
import httpx2
import openai
import pytest
import redis
from faults import FaultyFront
from harness import Billing, FakeLLM, conversations, ledger, wait_for
from talk import LINES, STATES

AT_ONCE = 6  # users who hold one conversation after the other
# The observer steps back behind everything else that the machine does, so on a busy one getting on takes its time.
POSTED_SECONDS_MAX = 90.0
CALL_SECONDS = 30.0  # for a persistent caller to get an answer through
TIMEOUT_SECONDS = 9.0  # of silence, for a session
VICTIMS = ("observer", "proxy", "both", "redis")
SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEEDS", "1").split(",")]
CUT = (openai.OpenAIError, anthropic.AnthropicError, httpx2.HTTPError)
PLAN = f"""
rate_plan:
  name: "chaos"
  billing_mode: POSTPAID
  metrics: [{{id: resolution, name: R, unit: resolution, aggregation: COUNT, event_field: outcome}}]
  pricing: {{model: PER_UNIT, rate: 0.99, currency: USD}}
  session_config: {{timeout_minutes: {TIMEOUT_SECONDS / 60}}}
"""


@dataclass
class Talk:
    """One conversation. `persistent`: a call that was cut is made again, as careful callers do; others give up."""

    conversation: str
    kind: str
    provider: str
    stream: bool
    persistent: bool
    turns: int = 0
    calls: int = 0  # answers that arrived
    cut: bool = False  # the caller gave up
    heard: float = 0.0  # when something last went through, by this process's clock
    silence: float = 0.0  # the longest time in which nothing may have

    def went_through(self):
        now = time.monotonic()
        if self.heard:
            self.silence = max(self.silence, now - self.heard)
        self.heard = now

    @property
    def answered(self):
        """All its answers arrived, and without a silence that ends a session."""
        return not self.cut and self.silence < TIMEOUT_SECONDS


class Caller:
    """A `Chat` of the example agent that notes what went through and, if it is persistent, tries again."""

    def __init__(self, chat, talk):
        self.chat, self.talk = chat, talk
        self.say, self.give = chat.say, chat.give

    async def reply(self, headers):
        deadline = time.monotonic() + CALL_SECONDS
        while True:
            try:
                reply = await self.chat.reply(headers)
            except CUT:
                if not self.talk.persistent or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
            else:
                self.talk.went_through()
                self.talk.calls += 1
                return reply


@dataclass
class Load:
    """Users who talk through `url` until told to stop."""

    url: str
    seed: int
    talks: list = field(default_factory=list)
    under_way: set = field(default_factory=set)
    enough: threading.Event = field(default_factory=threading.Event)

    async def run(self):
        numbers = itertools.count()
        await asyncio.gather(*(self._user(numbers) for _ in range(AT_ONCE)))

    async def _user(self, numbers):
        while not self.enough.is_set():
            number = next(numbers)
            choose = random.Random(f"{self.seed}/{number}")
            kind, provider = choose.choice(list(STATES)), choose.choice(("openai", "anthropic"))
            talk = Talk(f"k-{number}", kind, provider, choose.random() < 0.5, choose.random() < 0.75)
            self.talks.append(talk)
            try:
                # The longer it takes, the slower: a machine that cannot keep up is not buried.
                await self._hold(talk, think_seconds=0.3 + number / 200)
            except CUT:
                talk.cut = True
            finally:
                self.under_way.discard(talk.conversation)

    async def _hold(self, talk, think_seconds):
        # A caller that is not persistent leaves it to the SDK to try again, which it does for what is not a stream.
        options = {"api_key": "test-key", "max_retries": 0 if talk.persistent else 2}
        if talk.provider == "openai":
            client = openai.AsyncOpenAI(base_url=self.url + "/v1", **options)
            chat = example.OpenAIChat(client, stream=talk.stream)
        else:
            client = anthropic.AsyncAnthropic(base_url=self.url, **options)
            chat = example.AnthropicChat(client, stream=talk.stream)
        agent = example.Agent(Caller(chat, talk), conversation=talk.conversation, customer="acme")
        async with client:
            for line in LINES[talk.kind]:
                talk.turns += 1
                await agent.answer(line)
                self.under_way.add(talk.conversation)  # something of it has passed, and may still be unread
                await asyncio.sleep(think_seconds)


class Killer(threading.Thread):
    """Flushes Redis, kills each victim once in an order of the seed's, then two more, until every fault was met.

    The flush comes first, and the billing API misbehaves after it: the rebuild would heal what is lost before. Kills
    come at random moments, so that one comes while another is being got over; the last two with something posted in
    between, so that they hit a busy machine at work too.
    """

    def __init__(self, sidecar, load, front, seed):
        super().__init__(daemon=True)
        self.sidecar, self.load, self.front = sidecar, load, front
        self.random = random.Random(seed)
        self.killed = []  # victim, and how many conversations were under way
        self.failed = None

    def run(self):
        try:
            self._see_posted()
            self._kill("flushall")
            self.front.misbehave()
            for victim in self.random.sample(VICTIMS, len(VICTIMS)):
                time.sleep(self.random.uniform(0.3, 1.5))
                self._kill(victim)
            for victim in self.random.choices(VICTIMS, k=2):
                self._see_posted()
                self._kill(victim)
            wait_for("every fault of the billing API", self.front.misbehaved, POSTED_SECONDS_MAX)
        except Exception as error:
            self.failed = error
        finally:
            self.load.enough.set()

    def _see_posted(self):
        before = self.front.posts()
        wait_for("something to be posted", lambda: self.front.posts() > before, POSTED_SECONDS_MAX)

    def _kill(self, victim):
        under_way = wait_for("conversations under way", lambda: len(self.load.under_way))
        getattr(self, f"_{victim}")()
        self.killed.append((victim, under_way))

    def _redis(self):
        pid = wait_for("redis", self.sidecar.redis_pid)
        os.kill(pid, signal.SIGKILL)
        assert wait_for("another redis", self.sidecar.redis_pid) != pid

    def _flushall(self):
        # Redis may be loading, or be away for a moment, since it was killed before.
        wait_for("a redis to flush", self._flush)

    def _flush(self):
        with redis.Redis(unix_socket_path=str(self.sidecar.redis_socket())) as client:
            try:
                return client.flushall()
            except redis.RedisError:
                return False

    def _observer(self):
        pid = self._observer_at_work()
        os.kill(pid, signal.SIGKILL)
        wait_for("another observer", lambda: self.sidecar.parts()["observer"]["pid"] != pid)

    def _proxy(self):
        self._restart_proxy()

    def _both(self):
        os.kill(self._observer_at_work(), signal.SIGKILL)
        self._restart_proxy()

    def _observer_at_work(self):
        def pid():
            observer = self.sidecar.parts()["observer"]
            return observer["state"] == "ok" and observer["pid"]

        return wait_for("an observer at work", pid)

    def _restart_proxy(self):
        """As whatever runs containers would."""
        self.sidecar.process.kill()
        assert self.sidecar.process.popen.wait(10) == -signal.SIGKILL
        self.sidecar.start()


@pytest.fixture
def front(tmp_path, request):
    """The real billing API behind one that misbehaves; `front.billing` is the real one."""
    billing = Billing(tmp_path / "billing")
    front = FaultyFront(billing.url, request.getfixturevalue("seed"))
    front.billing = billing.url
    yield front
    front.close()
    billing.close()


@pytest.fixture
def slow_llm(tmp_path):
    """Answers take some time, so that there is always something to cut."""
    llm = FakeLLM(tmp_path, "--delay-ms", "20")
    yield llm
    llm.close()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_answered_conversation_is_posted_once_to_its_right_state(seed, front, slow_llm, sidecar, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN)
    running = sidecar(PLAN=plan, UPSTREAM=slow_llm.url, BILLING_URL=front.address).start()
    running.keep_ports()
    running.wait_up()
    load = Load(running.url, seed)
    killer = Killer(running, load, front, seed)
    killer.start()
    asyncio.run(load.run())
    killer.join()
    circumstances = f"killed {killer.killed}, billing {front.seen}, {len(load.talks)} conversations"
    assert killer.failed is None, f"{killer.failed!r} ({circumstances})"
    assert {victim for victim, under_way in killer.killed if under_way} == {"flushall", *VICTIMS}, circumstances
    assert front.misbehaved(), circumstances
    answered = [talk for talk in load.talks if talk.answered]
    assert len(answered) >= 0.8 * len(load.talks), circumstances
    assert {talk.kind for talk in answered} == set(STATES), circumstances

    front.calm()
    wanted = {talk.conversation for talk in answered}
    rows = wait_for(
        f"every answered conversation in the ledger ({circumstances})",
        lambda: conversations(found := ledger(front.billing)) >= wanted and found,
        POSTED_SECONDS_MAX,
    )
    wrong = list(_wrong(load.talks, rows))
    assert not wrong, f"{wrong} ({circumstances})"


def _wrong(talks, rows):
    by_conversation = {}
    for row in rows:
        by_conversation.setdefault(row["data"]["conversation"], []).append(row["data"])
    for talk in talks:
        events = by_conversation.get(talk.conversation, [])
        found = [(data["state"], data["revision"], data["turns"]) for data in events]
        sessions = {data["session_id"] for data in events}
        right = found == [(STATES[talk.kind], 0, talk.turns)] if talk.answered else len(sessions) == len(found)
        if not right:
            yield talk, found

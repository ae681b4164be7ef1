"""A replica that ends, on a real journal and a real Redis: it leaves when nothing waits here, and stays gone then."""

from __future__ import annotations

import asyncio

from sidecar import identity
from sidecar.handover import HandOver
from sidecar.observer.journal import NewRow
from sidecar.observer.observation import Observation
from sidecar.policy.effect import Effect
from sidecar.policy.terms import Terms
from sidecar.sessions.applier import Applier
from sidecar.sessions.store import Store
from sidecar.tasks import told_to_stop

T0 = 1_795_000_000_000
RESOLVE = Effect("resolve_tool", "tool_call", "resolve", "RESOLVED")


def exchange(sequence):
    key = identity.key("acme", "conversation", f"c{sequence}")
    base = identity.session_base("acme", "conversation", f"c{sequence}")
    observation = Observation(
        "ring",
        sequence,
        "acme",
        T0,
        T0 + sequence,
        (key,),
        base,
        Terms("fin", "sha256:aa"),
        conversation=f"c{sequence}",
        api="openai.chat",
        user_messages=("m",),
        effects=(RESOLVE,),
    )
    return NewRow("ring", sequence, "observation", observation.at_ms, observation.to_json())


class NoCourier:
    """Outcomes stay in the outbox."""

    async def drain(self, _deadline):
        return False


class Ending:
    """A replica with its tasks; `beating` beats as fast as it can."""

    def __init__(self, journal, redis, **options):
        self.journal, self.intake_closed, self.beats = journal, False, 0
        self.store = Store(redis, "acme", **options)
        self.applier = Applier(journal, self.store)
        self.tasks = [asyncio.create_task(self.applier.run()), asyncio.create_task(self.beating())]

    async def beat(self):
        self.beats += 1
        await self.store.heartbeat(self.journal.id, T0, self.beats)

    async def beating(self):
        while not told_to_stop():
            await self.beat()
            await asyncio.sleep(0)

    async def close_intake(self):
        self.intake_closed = True

    async def end(self, seconds=30.0, *, emptied=True):
        hand_over = HandOver(
            producer=self.journal.id,
            applier=self.applier,
            store=self.store,
            courier=NoCourier(),
            beat=self.beat,
            close_intake=self.close_intake,
            emptied=lambda: emptied,
            background=self.tasks,
        )
        return await hand_over.run(seconds)


async def test_who_has_nothing_left_leaves_and_no_beat_brings_it_back(journal, redis):
    journal.append([exchange(1)])
    for _ in range(20):
        ending = Ending(journal, redis)
        await asyncio.sleep(0.005)
        assert await ending.end()
        assert ending.intake_closed
        assert all(task.done() for task in ending.tasks)
        await ending.beat()
        assert await Store(redis, "acme").beats() == {}
    assert await redis.xlen("sidecar:{acme}:outbox") == 1


async def test_who_has_facts_that_redis_does_not_take_stays_registered(journal, redis):
    journal.append([exchange(1), exchange(2)])
    ending = Ending(journal, redis, outbox_max=1)
    assert not await ending.end(0.3)
    assert ending.applier.backlog() == 1
    assert set(await ending.store.beats()) == {journal.id}


async def test_who_has_traffic_in_the_queue_stays_registered(journal, redis):
    ending = Ending(journal, redis)
    assert not await ending.end(emptied=False)
    assert set(await ending.store.beats()) == {journal.id}

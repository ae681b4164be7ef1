"""The hours of a statement add up to the sessions that are over; where they cannot, the ledger gets to see it."""

from __future__ import annotations

from random import Random
from typing import Any

import orjson
import pytest
from session_facts import HOUR, RESOLVE, T0, Talk

from sidecar.delivery.event import event_of


class Seller:
    """A tenant whose sessions become final under versions that write hours down, and under some that do not."""

    def __init__(self, talk: Talk) -> None:
        self.talk, self.redis, self.key = talk, talk.store.redis, talk.store.key
        self.final = 0

    async def resolve(self, at_ms: int, *, hours: bool = True) -> None:
        kept = await self.redis.hgetall(self.key("finalized"))
        await self.talk.say(at_ms, f"c-{self.final}", effects=(RESOLVE,))
        self.final += 1
        if not hours:  # as the version did that wrote none
            await self.redis.delete(self.key("finalized"))
            if kept:
                await self.redis.hset(self.key("finalized"), mapping=kept)

    async def stated(self, at_ms: int) -> dict[str, Any]:
        assert await self.talk.store.statement(T0 + at_ms) == 1
        [(_, fields)] = await self.redis.xrevrange(self.key("outbox"), count=1)
        data = orjson.loads(event_of("statement", fields[b"body"]).body)["data"]
        assert sum(data["finalized"].values()) == self.final
        return data

    async def untold(self, at_ms: int) -> int:
        """Sessions that are over of which the next statement tells no hour."""
        data = await self.stated(at_ms)
        return self.final - sum(data["finalized_by_hour"].values()) - data["finalized_before"]


@pytest.fixture
def seller(talk: Talk) -> Seller:
    return Seller(talk)


@pytest.mark.parametrize("told", [0, 2])
async def test_what_a_version_without_hours_left_is_put_together_at_the_first_statement(
    seller: Seller, told: int
) -> None:
    for n in range(3):
        await seller.resolve(n * HOUR, hours=False)
    for n in range(told):
        await seller.resolve((4 + n) * HOUR)
    first = await seller.stated(6 * HOUR)
    assert (first["finalized_by_hour"], first["finalized_before"]) == ({}, 3 + told)


async def test_hours_are_told_apart_again_where_none_from_before_can_be(seller: Seller) -> None:
    await seller.resolve(0, hours=False)
    now = HOUR + 1
    assert await seller.untold(now) == 0
    for at in (now, now + HOUR, now + 2 * HOUR, now + 2 * HOUR + 1):
        await seller.resolve(at)
    data = await seller.stated(now + 2 * HOUR)
    assert list(data["finalized_by_hour"].values()) == [2]
    assert data["finalized_before"] == 3, "the one from before, its hour's and the next one's"
    await seller.resolve(now + 3)  # late
    data = await seller.stated(now + 3 * HOUR)
    assert (list(data["finalized_by_hour"].values()), data["finalized_before"]) == ([2], 4)


async def test_hours_that_are_not_written_down_later_are_no_upgrade_and_are_stated_every_time(seller: Seller) -> None:
    await seller.resolve(0)
    assert await seller.untold(0) == 0
    for hour in range(1, 5):
        await seller.resolve(hour * HOUR, hours=False)
        assert await seller.untold(hour * HOUR) == 1
    await seller.resolve(5 * HOUR)
    assert await seller.untold(5 * HOUR) == 0, "the fault is gone"


async def test_what_ran_beside_is_stated_once(seller: Seller) -> None:
    await seller.resolve(0, hours=False)
    assert await seller.untold(0) == 0
    await seller.resolve(HOUR)
    for _ in range(3):
        await seller.resolve(HOUR, hours=False)
    assert await seller.untold(HOUR) == 3
    for hour in range(2, 6):
        await seller.resolve(hour * HOUR)
        assert await seller.untold(hour * HOUR) == 0


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_writes_no_hours_is_untold_in_one_statement_and_never_lost(seller: Seller, seed: int) -> None:
    random = Random(seed)
    untold, first = 0, True
    for hour in range(30):
        for _ in range(random.randrange(4)):
            hours = random.random() < 0.9
            await seller.resolve(hour * HOUR - random.choice([0, 0, 0, 5, 90]) * HOUR // 10, hours=hours)
            untold += not hours
        if seller.final:
            assert await seller.untold(hour * HOUR) == (0 if first else untold)
            untold, first = 0, False

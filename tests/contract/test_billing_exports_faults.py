"""Answers that fail, are lost or refuse an event: every entry is taken once, or parked until somebody decides."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from billing_api import DAY_US, Clock, event, post
from export_fake import HOUR_US
from export_targets import FAKES, OrbStrict
from exporting import KINDS, METER, exporting, units
from sqlalchemy.engine import URL

from sidecar.billing.exports.targets import TARGETS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["429", "409", "500", "dropped", "lost", "stored_500"])
async def test_a_fault_is_followed_by_the_same_bytes_until_it_is_taken_once(
    file_url: URL, kind: str, fault: str
) -> None:
    async with exporting(file_url, [kind]) as it:
        fake = it.fakes[kind]
        await post(it.api, *(event(number) for number in range(3)))
        fake.faults = [fault] * 3
        await it.run()
        shown = await it.meter(kind)
        assert shown["acknowledged"] == 0
        assert shown["waiting"] == 3
        if fault == "429":
            before = len(fake.requests)
            await it.run(6)
            assert len(fake.requests) == before, "Retry-After says 7 seconds"
        for _ in range(8):
            await it.run(10)
        assert fake.total(METER) == 3
        assert all(len(bodies) == 1 for bodies in fake.bodies.values()), "the same bytes at every attempt"
        shown = await it.meter(kind)
        assert (shown["acknowledged"], shown["parked"], shown["oldest_waiting_seconds"]) == (3, 0, None)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if TARGETS[kind].traits.memory_us])
async def test_past_the_memory_of_ids_an_unanswered_entry_is_parked_and_never_guessed(file_url: URL, kind: str) -> None:
    async with exporting(file_url, [kind]) as it:
        fake = it.fakes[kind]
        memory = TARGETS[kind].traits.memory_us or 0
        await post(it.api, event(1))
        fake.faults = ["lost"]
        await it.run()
        assert fake.total(METER) == 1
        it.clock.now_us += memory
        await it.run()
        shown = await it.meter(kind)
        assert (shown["parked"], shown["causes"], shown["waiting"]) == (1, {"ambiguous": 1}, 0)
        assert fake.total(METER) == 1, "sent again it would count twice"
        assert units(shown)["parked"] == 1
        [entry] = await it.entries(kind, "parked")
        assert entry["cause"] == "ambiguous"
        # Whoever looked there says that it has it.
        assert await it.redeliver(kind, action="acknowledge", entries=[entry["id"]]) == {"decided": 1, "parked": 0}
        await it.run(600)
        assert fake.total(METER) == 1
        assert units(await it.meter(kind))["acknowledged"] == 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if TARGETS[kind].traits.memory_us])
async def test_an_ambiguous_entry_that_the_target_lacks_is_sent_on_request(file_url: URL, kind: str) -> None:
    async with exporting(file_url, [kind]) as it:
        fake = it.fakes[kind]
        await post(it.api, event(1))
        fake.faults = ["dropped"]
        await it.run()
        it.clock.now_us += (TARGETS[kind].traits.memory_us or 0) + HOUR_US
        await it.run()
        assert (await it.meter(kind))["causes"] == {"ambiguous": 1}
        for _ in range(3):  # where its own time has become too old, it is parked for that, and then sent as of now
            await it.redeliver(kind)
            await it.run()
        assert fake.total(METER) == 1
        assert units(await it.meter(kind))["acknowledged"] == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_an_outage_that_certainly_stored_nothing_may_last_past_the_memory(file_url: URL, kind: str) -> None:
    async with exporting(file_url, [kind]) as it:
        fake = it.fakes[kind]
        await post(it.api, event(1))
        fake.faults = ["429"] * 20
        for _ in range(20):
            await it.run(DAY_US // 1_000_000 // 4)
        await it.run(DAY_US // 1_000_000)
        assert fake.total(METER) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_one_event_that_is_refused_does_not_hold_up_its_batch(file_url: URL, kind: str) -> None:
    fakes = {kind: FAKES[kind](Clock())}
    await _one_refused(file_url, kind, fakes)


async def test_orb_may_refuse_a_batch_with_a_4xx(file_url: URL) -> None:
    await _one_refused(file_url, "orb", {"orb": OrbStrict(Clock())})


async def _one_refused(ledger_url: URL, kind: str, fakes: dict[str, Any]) -> None:
    async with exporting(ledger_url, [kind], fakes=fakes) as it:
        fake = it.fakes[kind]
        fake.broken = {"nobody"}
        await post(it.api, *(event(number, subject="nobody" if number == 3 else "customer-17") for number in range(7)))
        await it.run()
        assert fake.amounts == {("customer-17", METER): 6}
        shown = await it.meter(kind)
        assert (shown["acknowledged"], shown["parked"], shown["causes"]) == (6, 1, {"refused": 1})
        [entry] = await it.entries(kind, "parked")
        assert entry["customer"] == "nobody"
        assert entry["reason"]
        assert units(shown) == {"ledger": 7, "acknowledged": 6, "waiting": 0, "parked": 1, "difference": 0}
        fake.broken = set()
        assert (await it.redeliver(kind))["decided"] == 1
        await it.run()
        assert fake.total(METER) == 7


async def test_lago_throws_a_batch_away_for_one_duplicate_which_is_stripped(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["lago"]) as it:
        fake = it.fakes["lago"]
        await post(it.api, event(1))
        fake.faults = ["lost"]
        await it.run()
        await post(it.api, *(event(number) for number in range(2, 6)))
        await it.run(3)
        assert fake.total(METER) == 5
        paths = [path for path, _, _ in fake.requests]
        assert paths == ["/api/v1/events", "/api/v1/events/batch", "/api/v1/events/batch"]
        assert (await it.meter("lago"))["acknowledged"] == 5


async def test_a_wrong_key_blames_no_event(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["openmeter"]) as it:
        fake = it.fakes["openmeter"]
        await post(it.api, event(1))
        answer = fake.answer
        for status in (401, 403, 404):
            fake.answer = lambda *_, status=status: web.Response(status=status)
            await it.run(600)
            fake.answer = answer
            assert (await it.meter("openmeter"))["waiting"] == 1
        await it.run(600)
        assert fake.total(METER) == 1


@pytest.mark.parametrize("kind", ["webhook", "stripe_v1"])
@pytest.mark.parametrize("at_once", [1, 3])
async def test_a_target_that_has_too_much_is_left_alone(ledger_url: URL, kind: str, at_once: int) -> None:
    async with exporting(ledger_url, [kind], more=f"  concurrency_max: {at_once}\n") as it:
        fake = it.fakes[kind]
        await post(it.api, *(event(number, subject=f"customer-{number}") for number in range(5)))
        fake.faults = ["429"] * at_once
        await it.run()
        await it.run(6)
        assert len(fake.requests) == at_once, "Retry-After says 7 seconds, to all"
        await it.run(1)
        await it.run(10)
        assert fake.total(METER) == 5

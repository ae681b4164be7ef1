"""Many requests and many replicas at once: their bounds, their order, and who dies on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from billing_api import event, post, reversal
from exporting import LATER, METER, exporting
from sqlalchemy.engine import URL

from sidecar.billing.exports.outbox import CLAIM_US, claim
from sidecar.billing.exports.sender import Sender


async def test_a_sender_that_dies_leaves_its_entries_to_the_others(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["lago"], replicas=2) as it:
        await post(it.api, *(event(number) for number in range(5)))
        await it.note()
        first, second = it.replicas
        taken = await claim(it.api.billing.database, first.destinations[0], it.clock.now_us)
        assert taken is not None
        assert [len(batch) for batch in taken] == [5]
        assert not await second.senders[0].feed(), "they are claimed"
        it.clock.now_us += CLAIM_US
        assert await second.senders[0].feed()
        await it.send()
        assert second.senders[0].results == {"taken": 5}
        assert it.fakes["lago"].total(METER) == 5


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def feeding(sender: Sender) -> AsyncIterator[None]:
    """As upkeep does, but that it ends between two claims."""
    stopped = asyncio.Event()

    async def feed() -> None:
        while not stopped.is_set():
            if not await sender.feed():
                await asyncio.sleep(0.01)

    task = asyncio.create_task(feed())
    try:
        yield
    finally:
        stopped.set()
        async with asyncio.timeout(30):
            await task


@pytest.mark.parametrize(
    ("kind", "customers", "more", "at_once"),
    [
        ("webhook", 1, "", 8),
        ("webhook", 1, "  concurrency_max: 3\n", 3),
        ("stripe_v1", 12, "", 8),
        ("stripe_v2", 2, "", 2),  # of each customer one
        ("stripe_v1", 1, "", 1),
        ("orb", 12, "  batch_max: 1\n", 1),
    ],
)
async def test_as_many_requests_are_on_their_way_as_may_be(
    ledger_url: URL, kind: str, customers: int, more: str, at_once: int
) -> None:
    async with exporting(ledger_url, [kind], more=more) as it:
        fake, sender = it.fakes[kind], it.replicas[0].senders[0]
        await post(it.api, *(event(number, subject=f"customer-{number % customers}") for number in range(12)))
        fake.open.clear()
        it.api.upkeep.start()
        try:
            await until(lambda: fake.under_way == at_once)
            fake.open.set()
            await until(lambda: sender.results["taken"] == 12)
        finally:
            await it.api.upkeep.stop()
        assert fake.most_at_once == at_once
        assert getattr(fake, "met", 0) == 0
        assert bool(sender.held_up) == (at_once == sender.destination.traits.concurrency_max)
        text = (await it.api.get("/metrics")).text
        assert f'sidecar_billing_export_held_up_total{{target="{kind}"}} {float(sender.held_up)}' in text
        assert fake.total(METER) == 12


@pytest.mark.parametrize("replicas", [1, 3])
async def test_a_correction_waits_for_what_it_corrects_however_many_go_at_once(ledger_url: URL, replicas: int) -> None:
    async with exporting(ledger_url, ["stripe_v1"], replicas=replicas) as it:
        fake, senders = it.fakes["stripe_v1"], [exports.senders[0] for exports in it.replicas]
        await post(it.api, *(event(number, subject=f"customer-{number % 4}") for number in range(8)))
        await it.note()
        await post(
            it.api, *(reversal(number + 10, number, LATER, subject=f"customer-{number % 4}") for number in range(8))
        )
        await it.note()
        fake.open.clear()
        async with AsyncExitStack() as stack:
            for sender in senders:
                await stack.enter_async_context(feeding(sender))
            await until(lambda: fake.under_way == 4)
            fake.open.set()
            await until(lambda: sum(sender.results["taken"] for sender in senders) >= 8)
            it.clock.now_us += 1_000_000
        for _ in range(4):
            await it.run(60)
        assert fake.amounts == {(f"customer-{number}", METER): 0 for number in range(4)}
        assert fake.met == 0
        acts = [(entry["act"], entry["state"]) for entry in await it.entries("stripe_v1")]
        assert acts == [("cancel", "acknowledged")] * 8 + [("usage", "acknowledged")] * 8


async def test_what_keeps_an_answer_from_being_written_down_is_told_and_the_entry_goes_again(
    ledger_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with exporting(ledger_url, ["webhook"]) as it:
        sender = it.replicas[0].senders[0]
        await post(it.api, event(1))
        await it.note()

        async def failing(*_: Any) -> None:
            raise OSError("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr("sidecar.billing.exports.sender.settle", failing)
            assert await sender.feed()
            await until(lambda: sender.results["taken"] == 1)
            with pytest.raises(OSError, match="the disk is full"):
                await until_raises(sender)
        it.clock.now_us += CLAIM_US
        await it.run()
        assert (await it.meter("webhook"))["acknowledged"] == 1
        assert it.fakes["webhook"].total(METER) == 1


async def until_raises(sender: Sender) -> None:
    async with asyncio.timeout(30):
        while True:
            await sender.feed()
            await asyncio.sleep(0.01)

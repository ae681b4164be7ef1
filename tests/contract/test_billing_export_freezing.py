"""What is sent is decided once; only what the target certainly lacks is decided anew."""

from __future__ import annotations

from typing import Any

from billing_api import event, post, reversal
from exporting import METER, Setting, exporting, units
from sqlalchemy import select
from sqlalchemy.engine import URL

from sidecar.billing.exports.tables import export_events

HOUR = 3600
LATER = "2026-11-22T12:00:00Z"
NAMED = "  customer: attributes.stripe\n"


async def name(it: Setting, identifier: str) -> None:
    answer = await it.api.put("/v1/customers/customer-17", json={"attributes": {"stripe": identifier}})
    assert answer.is_success, answer.text


async def rows(it: Setting) -> list[dict[str, Any]]:
    async with it.api.billing.database.reading() as connection:
        query = select(export_events).order_by(export_events.c.seq)
        return [dict(row) for row in (await connection.execute(query)).mappings()]


async def test_a_customer_that_has_another_id_now_is_told_by_it_in_what_is_sent_first_from_then_on(
    ledger_url: URL,
) -> None:
    async with exporting(ledger_url, ["stripe_v1"], more=NAMED) as it:
        fake = it.fakes["stripe_v1"]
        await name(it, "cus_1")
        it.clock.now_us += 1_000_000
        await post(it.api, event(1, time="2026-11-22T10:00:01Z"))
        fake.faults = ["429"]
        await it.run()
        it.clock.now_us += 1_000_000
        await post(it.api, event(2, time="2026-11-22T10:00:01Z"))
        it.clock.now_us += 1_000_000
        await name(it, "cus_2")
        for _ in range(3):
            await it.run(60)
        assert fake.amounts == {("cus_1", METER): 1, ("cus_2", METER): 1}


async def cancel_late(it: Setting, fault: str) -> None:
    """What was sent is cancelled within the last hour in which it can be, and the target fails."""
    await post(it.api, event(1))
    await it.run()
    await it.run(23 * HOUR)
    await post(it.api, reversal(2, 1, LATER))
    it.fakes["stripe_v1"].faults = [fault]
    await it.run()


async def test_a_cancellation_that_was_never_taken_becomes_a_credit_when_it_is_too_late(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["stripe_v1"]) as it:
        fake = it.fakes["stripe_v1"]
        await cancel_late(it, "429")
        assert [row["act"] for row in await rows(it)] == ["usage", "cancel"]
        await it.run(HOUR)
        assert [row["act"] for row in await rows(it)] == ["usage", "credit"]
        assert fake.total(METER) == 0
        assert units(await it.meter("stripe_v1"))["acknowledged"] == 0


async def test_a_cancellation_that_may_have_been_taken_never_becomes_a_credit(ledger_url: URL) -> None:
    """It is too late to cancel, but not to ask again under the same key whether it was done."""
    async with exporting(ledger_url, ["stripe_v1"]) as it:
        fake = it.fakes["stripe_v1"]
        await cancel_late(it, "lost")
        await it.run(HOUR)
        assert [(row["act"], row["state"]) for row in await rows(it)] == [
            ("usage", "acknowledged"), ("cancel", "acknowledged")
        ]  # fmt: skip
        assert fake.total(METER) == 0


async def test_two_meters_of_one_outcome_are_taken_back_each_by_its_own(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["stripe_v1"], codes=[METER, "other"]) as it:
        fake = it.fakes["stripe_v1"]
        await post(it.api, event(1))
        await it.run()
        await post(it.api, reversal(2, 1, LATER))
        await it.run(60)
        assert fake.amounts == {("customer-17", METER): 0, ("customer-17", "other"): 0}
        assert sorted((row["meter"], row["act"]) for row in await rows(it)) == [
            ("other", "cancel"), ("other", "usage"), (METER, "cancel"), (METER, "usage")
        ]  # fmt: skip

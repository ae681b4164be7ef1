"""What Stripe was told is cancelled for a day and credited afterwards; what is too old goes as of another day."""

from __future__ import annotations

import pytest
from billing_api import event, post, put_plan, reversal, simple_plan
from exporting import LATER, METER, exporting, units
from sqlalchemy.engine import URL


@pytest.mark.parametrize("kind", ["stripe_v1", "stripe_v2"])
@pytest.mark.parametrize("hours", [1, 25])
@pytest.mark.parametrize("faults", [["lost", "500"], ["stored_500", "lost"], ["429", "500", "stored_500"]])
async def test_stripe_cancels_for_a_day_and_credits_afterwards(
    file_url: URL, kind: str, hours: int, faults: list[str]
) -> None:
    async with exporting(file_url, [kind]) as it:
        fake = it.fakes[kind]
        await post(it.api, event(1), event(2))
        await it.run()
        await it.run(hours * 3600)
        await post(it.api, reversal(3, 1, LATER))
        fake.faults = faults[:]
        await it.run()
        for _ in range(4):
            await it.run(10)
        assert fake.total(METER) == 1
        acts = [entry["act"] for entry in await it.entries(kind)]
        assert acts == ["cancel" if hours == 1 else "credit", "usage", "usage"]
        assert units(await it.meter(kind)) == {
            "ledger": 1, "acknowledged": 1, "waiting": 0, "parked": 0, "difference": 0
        }  # fmt: skip


@pytest.mark.parametrize(("fault", "shown"), [("lost", {}), ("500", {}), ("stored_500", {"ambiguous": 1})])
async def test_a_cancellation_is_repeated_under_its_key_until_the_answer_to_it_is_saved(
    file_url: URL, fault: str, shown: dict[str, int]
) -> None:
    """Where Stripe's words for what is cancelled already are others than expected, only an answer of 500 is a doubt."""
    async with exporting(file_url, ["stripe_v1"]) as it:
        fake = it.fakes["stripe_v1"]
        fake.cancelled_already = "no"
        await post(it.api, event(1))
        await it.run()
        await post(it.api, reversal(2, 1, LATER))
        fake.faults = [fault]
        for _ in range(3):
            await it.run(10)
        assert fake.total(METER) == 0
        assert (await it.meter("stripe_v1"))["causes"] == shown


@pytest.mark.parametrize("kind", ["stripe_v1", "stripe_v2"])
async def test_a_cancellation_that_was_never_answered_is_parked_after_the_day(file_url: URL, kind: str) -> None:
    async with exporting(file_url, [kind]) as it:
        fake = it.fakes[kind]
        await post(it.api, event(1))
        await it.run()
        await it.run(3600)
        await post(it.api, reversal(3, 1, "2026-11-22T11:00:00Z"))
        fake.faults = ["lost"]
        await it.run()
        await it.run(25 * 3600)
        assert (await it.meter(kind))["causes"] == {"ambiguous": 1}
        assert fake.total(METER) == 0


@pytest.mark.parametrize("kind", ["stripe_v1", "stripe_v2", "metronome"])
async def test_what_is_too_old_is_parked_and_becomes_an_event_of_the_day_it_is_redelivered(
    file_url: URL, kind: str
) -> None:
    async with exporting(file_url, [kind]) as it:
        await put_plan(it.api, "then", simple_plan())  # a plan of its own holds for October too
        await it.api.put("/v1/customers/customer-17", json={"plan": "then"})
        await post(it.api, event(1, time="2026-10-10T00:00:00Z"))
        await it.run()
        assert (await it.meter(kind, "2026-10"))["causes"] == {"too_old": 1}
        assert it.fakes[kind].requests == []
        await it.redeliver(kind)
        await it.run()
        assert it.fakes[kind].total(METER) == 1

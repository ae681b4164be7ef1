"""What becomes of a claim whose sender is gone, or comes back late."""

from __future__ import annotations

import pytest
from billing_api import event, post
from exporting import METER, Setting, exporting, units
from sqlalchemy import func, select
from sqlalchemy.engine import URL

from sidecar.billing.exports.outbox import CLAIM_US, Answered, claim, settle
from sidecar.billing.exports.tables import export_events
from sidecar.billing.exports.target import Verdict
from sidecar.billing.exports.targets import TARGETS


async def claimed(it: Setting) -> int:
    """How many rows the index of claims holds."""
    query = select(func.count()).select_from(export_events).where(export_events.c.claim.is_not(None))
    async with it.api.billing.database.reading() as connection:
        return (await connection.execute(query)).scalar_one()


@pytest.mark.parametrize("kind", ["lago", "stripe_v1"])
async def test_no_claim_is_left_of_what_was_sent(ledger_url: URL, kind: str) -> None:
    async with exporting(ledger_url, [kind]) as it:
        await post(it.api, event(1), event(2))
        await it.note()
        assert await claim(it.api.billing.database, it.replicas[0].destinations[0], it.clock.now_us)
        assert await claimed(it) == {"lago": 2, "stripe_v1": 1}[kind]
        await it.run(CLAIM_US // 1_000_000)
        assert it.fakes[kind].total(METER) == 2
        assert await claimed(it) == 0


@pytest.mark.parametrize("late", [None, "retry", "refused", "taken"])
async def test_a_claim_that_expired_ends_when_its_entry_is_parked(ledger_url: URL, late: str | None) -> None:
    """And whoever had it says nothing about the entry any more, but that the target has it."""
    async with exporting(ledger_url, ["stripe_v1"]) as it:
        await post(it.api, event(1))
        await it.note()
        database, [destination] = it.api.billing.database, it.replicas[0].destinations
        [[gone]] = await claim(database, destination, it.clock.now_us) or []
        assert await claimed(it) == 1
        it.clock.now_us += TARGETS["stripe_v1"].traits.memory_us or 0
        await it.run()
        assert (await it.meter("stripe_v1"))["causes"] == {"ambiguous": 1}
        assert await claimed(it) == 0
        if late is not None:
            await settle(database, [Answered(gone, Verdict(late, "late"))], it.clock.now_us)
        await it.run(600)
        shown = await it.meter("stripe_v1")
        assert shown["causes"] == ({} if late == "taken" else {"ambiguous": 1})
        assert units(shown)["acknowledged"] == (late == "taken")
        assert await claimed(it) == 0
        assert it.fakes["stripe_v1"].requests == []

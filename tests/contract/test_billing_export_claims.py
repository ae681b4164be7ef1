"""What becomes of a claim whose sender is gone, or comes back late."""

from __future__ import annotations

from typing import Any

import pytest
from billing_api import event, post
from exporting import METER, Setting, exporting, units
from sqlalchemy import func, select, update
from sqlalchemy.engine import URL

from sidecar.billing.exports.outbox import CLAIM_US, Answered, Claimed, claim, settle
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


async def taken(it: Setting, most: int = 1) -> list[list[Claimed]]:
    return await claim(it.api.billing.database, it.replicas[0].destinations[0], it.clock.now_us, most) or []


async def row_of(it: Setting) -> dict[str, Any]:
    async with it.api.billing.database.reading() as connection:
        return dict((await connection.execute(select(export_events))).mappings().one())


async def change(it: Setting, outcomes: list[str], **values: Any) -> None:
    async with it.api.billing.database.writing() as connection:
        chosen = update(export_events).where(export_events.c.outcome_id.in_(outcomes))
        await connection.execute(chosen.values(**values))


async def test_a_claim_notes_the_first_attempt_and_counts_all(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["lago"]) as it:
        await post(it.api, event(1))
        await it.note()
        begun = it.clock.now_us
        [[first]] = await taken(it)
        assert first.unsure_before is None
        it.clock.now_us += CLAIM_US - 1
        assert await taken(it) == [], "it holds for so long"
        it.clock.now_us += 1
        [[second]] = await taken(it)
        row = await row_of(it)
        assert second.unsure_before == begun
        assert (second.row["id"], second.sent) == (first.row["id"], first.sent)
        assert second.row["claim"] != first.row["claim"]
        assert (row["attempts"], row["sent_us"], row["unsure_us"]) == (2, begun, begun)
        assert (row["claim"], row["next_us"]) == (second.row["claim"], it.clock.now_us + CLAIM_US)


async def test_whoever_comes_back_late_says_only_that_the_target_has_it(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["lago"]) as it:
        await post(it.api, event(1))
        await it.note()
        database = it.api.billing.database
        [[first]] = await taken(it)
        it.clock.now_us += CLAIM_US
        [[second]] = await taken(it)
        held = await row_of(it)
        for result in ("retry", "refused", "again", "alone"):
            await settle(database, [Answered(first, Verdict(result, "late", unstored=True))], it.clock.now_us)
            assert await row_of(it) == held
        await settle(database, [Answered(first, Verdict("taken"))], it.clock.now_us)
        done = await row_of(it)
        assert (done["state"], done["claim"], done["acknowledged_us"]) == ("acknowledged", None, it.clock.now_us)
        for result in ("retry", "refused", "taken"):
            await settle(database, [Answered(second, Verdict(result, "later"))], it.clock.now_us + 1)
            assert await row_of(it) == done
        assert units(await it.meter("lago"))["acknowledged"] == 1


async def test_a_late_yes_takes_away_why_it_was_parked(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["stripe_v1"]) as it:
        await post(it.api, event(1))
        await it.note()
        [[gone]] = await taken(it)
        it.clock.now_us += TARGETS["stripe_v1"].traits.memory_us or 0
        await it.run()
        assert (await row_of(it))["cause"] == "ambiguous"
        await settle(it.api.billing.database, [Answered(gone, Verdict("taken"))], it.clock.now_us)
        row = await row_of(it)
        assert (row["state"], row["cause"], row["reason"], row["claim"]) == ("acknowledged", None, None, None)


async def test_what_waits_for_its_time_has_no_claim(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["polar"]) as it:
        await post(it.api, event(1))
        await it.note()
        assert await taken(it)
        it.clock.now_us += CLAIM_US
        ahead = it.clock.now_us + 5_000_000
        await change(it, ["out_1"], at_us=ahead)  # a clock that was set back
        assert await taken(it) == []
        row = await row_of(it)
        assert (row["claim"], row["next_us"], row["attempts"]) == (None, ahead, 1)


async def test_what_is_due_longest_goes_first_and_what_goes_alone_before_all(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["lago"], more="  batch_max: 3\n") as it:
        await post(it.api, *(event(number) for number in range(9)))
        await it.note()
        await change(it, ["out_7", "out_8"], next_us=it.clock.now_us - 2)
        await change(it, ["out_6"], alone=True, next_us=it.clock.now_us - 1)
        batches = await taken(it, 3)
        assert [[one.row["outcome_id"] for one in batch] for batch in batches] == [
            ["out_6"], ["out_7", "out_8", "out_0"], ["out_1", "out_2", "out_3"]
        ]  # fmt: skip
        assert [[one.row["outcome_id"] for one in batch] for batch in await taken(it, 1)] == [["out_4", "out_5"]]
        assert await taken(it, 1) == []


async def test_a_claim_of_which_nothing_may_be_sent_was_something_to_do(ledger_url: URL) -> None:
    """None would let the sender rest although more may be due."""
    async with exporting(ledger_url, ["lago"], more="  customer: attributes.lago\n") as it:
        await post(it.api, event(1))
        await it.note()
        destination = it.replicas[0].destinations[0]
        assert await claim(it.api.billing.database, destination, it.clock.now_us) == []
        assert await claim(it.api.billing.database, destination, it.clock.now_us) is None


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
async def test_replicas_claim_past_each_other(ledger_url: URL) -> None:
    """On PostgreSQL; SQLite has one writer at a time."""
    async with exporting(ledger_url, ["lago"], more="  batch_max: 2\n") as it:
        await post(it.api, *(event(number) for number in range(4)))
        await it.note()
        first = select(export_events.c.outcome_id).order_by(export_events.c.seq).limit(2).with_for_update()
        async with it.api.billing.database.writing() as other:
            held = (await other.execute(first)).scalars().all()
            [batch] = await taken(it)
            assert not {one.row["outcome_id"] for one in batch} & set(held)
            assert len(batch) == 2

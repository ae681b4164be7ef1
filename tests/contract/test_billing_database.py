"""What readers and writers of the ledger may rely on, on real servers."""

from __future__ import annotations

import asyncio

import pytest
from billing_api import billing_on, event, simple_plan
from ledgers import postgres_database
from sqlalchemy import Executable, delete, func, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from sidecar.billing import upkeep
from sidecar.billing.events import read_event
from sidecar.billing.ingest import TRANSACTIONS
from sidecar.billing.ledger.append import append
from sidecar.billing.ledger.database import CLOSING, Database
from sidecar.billing.ledger.entries import Wanted, rows_where
from sidecar.billing.ledger.tables import outcomes, pending
from sidecar.billing.service import Billing
from sidecar.billing.upkeep import Upkeep
from sidecar.policy.loading import load_plan


async def test_a_reader_sees_one_snapshot(ledger_url: URL) -> None:
    count = select(func.count())
    async with billing_on(ledger_url) as billing:
        await billing.post([event(1)])
        async with billing.database.reading() as reader:
            before = [(await reader.execute(count.select_from(table))).scalar_one() for table in (outcomes, pending)]
            await billing.post([event(2)])
            await Upkeep(billing).settle()
            after = [(await reader.execute(count.select_from(table))).scalar_one() for table in (outcomes, pending)]
        async with billing.database.reading() as reader:
            later = [(await reader.execute(count.select_from(table))).scalar_one() for table in (outcomes, pending)]
    assert before == after == [1, 1]
    assert later == [2, 0]


async def test_a_connection_that_read_can_write_again(ledger_url: URL) -> None:
    async with billing_on(ledger_url) as billing:
        for number in range(20):  # more than the pool has connections
            async with billing.database.reading() as reader:
                await reader.execute(select(outcomes.c.seq))
            assert (await billing.post([event(number)])).accepted == 1


async def test_a_reader_of_postgresql_cannot_write(postgres: str) -> None:
    async with postgres_database(postgres) as url, billing_on(url) as billing, billing.database.reading() as reader:
        told = [(await reader.execute(text(f"SHOW {name}"))).scalar_one() for name in (
            "transaction_isolation", "transaction_read_only"
        )]  # fmt: skip
        assert told == ["repeatable read", "on"]
        with pytest.raises(DBAPIError, match="read-only"):
            await reader.execute(text("DELETE FROM pending"))


async def test_replicas_that_save_in_the_same_moment_follow_each_other(ledger_url: URL) -> None:
    async with billing_on(ledger_url) as one, billing_on(ledger_url) as other:
        both = [one, other]
        plans = [load_plan(simple_plan(rate).encode(), "p") for rate in range(1, 7)]
        await asyncio.gather(*(both[n % 2].put_plan("p", plan) for n, plan in enumerate(plans)))
        await asyncio.gather(*(both[n % 2].put_customer("c", {"seats": n}) for n in range(6)))
        versions, customer = await one.plan("p"), await one.customer("c")
    assert [version.version for version in versions] == [1, 2, 3, 4, 5, 6]
    assert sorted(version.facts["seats"] for version in customer.versions) == [0, 1, 2, 3, 4, 5]


async def _waits_for_a_lock(billing: Billing, number: int = 1) -> None:
    waits = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    async with asyncio.timeout(30):
        while True:
            async with billing.database.reading() as reader:
                if (await reader.execute(waits)).scalar_one() >= number:
                    return
            await asyncio.sleep(0.01)


async def test_postgresql_works_on_two_transactions_of_a_replica_at_once_and_the_rest_waits(postgres: str) -> None:
    async with postgres_database(postgres) as url, billing_on(url) as billing:
        async with billing.database.writing() as connection:
            await connection.execute(text("LOCK TABLE outcomes IN ACCESS EXCLUSIVE MODE"))
            posts = [asyncio.create_task(billing.post([event(number)])) for number in range(5)]
            await _waits_for_a_lock(billing, TRANSACTIONS)
            assert billing.ingest.waiting == 5
        assert [receipt.accepted for receipt in await asyncio.gather(*posts)] == [1] * 5
        async with billing.database.reading() as reader:
            by = (await reader.execute(text("SELECT count(DISTINCT xmin::text) FROM outcomes"))).scalar_one()
    assert by == 3, "two at once, and one for what was left"


@pytest.mark.parametrize("met", [False, True])
async def test_ids_that_another_replica_adds_in_the_same_moment_are_decided_by_it(postgres: str, met: bool) -> None:
    mine = [event(1), event(2, subject="globex"), event(3)]
    async with postgres_database(postgres) as url, billing_on(url) as one, billing_on(url) as other:

        async def add() -> list[str]:
            if not met:
                receipt = await one.post(mine)
                return [*receipt.accepted * ["accepted"], *(row["reason"] for row in receipt.rejected)]
            async with one.database.writing() as connection:
                verdicts = await append(connection, [read_event(value) for value in mine], 0, met=True)
            return sorted(verdict for verdict in verdicts if verdict != "duplicate")

        async with other.database.writing() as theirs:
            await append(theirs, [read_event(event(1)), read_event(event(2))], 0)
            adding = asyncio.create_task(add())
            await _waits_for_a_lock(other)
        assert await adding == ["accepted", "conflict"]
        rows = await one.entries(Wanted())
    assert [(row["id"], row["customer"]) for row in rows] == [
        ("out_3", "customer-17"), ("out_2", "customer-17"), ("out_1", "customer-17"),
    ]  # fmt: skip


async def _fill(billing: Billing, events: int, *, left_alone: str) -> None:
    """With a table that the server does not look after by itself."""
    async with billing.database.writing() as connection:
        await connection.execute(text(f"ALTER TABLE {left_alone} SET (autovacuum_enabled = off)"))
    for start in range(0, events, 100):
        assert (await billing.post([event(number) for number in range(start, start + 100)])).accepted == 100


async def test_postgresql_looks_rows_up_by_their_keys_before_it_has_analyzed_the_table(postgres: str) -> None:
    """It would rather read all of them: without statistics every value has a two hundredth of the rows."""
    read = text("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'outcomes'")
    async with postgres_database(postgres) as url, billing_on(url) as billing:
        await _fill(billing, 2000, left_alone="outcomes")
        async with billing.database.reading() as reader:
            analyzed = text("SELECT reltuples FROM pg_class WHERE relname = 'outcomes'")
            assert (await reader.execute(analyzed)).scalar_one() == -1
            sessions = (await reader.execute(select(outcomes.c.session_id).limit(100))).scalars().all()
            await reader.execute(text("SELECT pg_stat_force_next_flush()"))
        async with billing.database.reading() as reader:
            before = (await reader.execute(read)).scalar_one()
            found = await rows_where(reader, outcomes.c.session_id, [*sessions, sessions[0], "unknown"])
            assert sorted(row["session_id"] for row in found) == sorted(sessions)
            await reader.execute(text("SELECT pg_stat_force_next_flush()"))
        async with billing.database.reading() as reader:
            assert (await reader.execute(read)).scalar_one() == before


async def test_notes_that_were_taken_off_leave_nothing_to_read_through(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "VACUUMED", 900)
    monkeypatch.setattr(upkeep, "NOTES_MAX", 60)  # 1,000 are no multiple of either
    pages = text("SELECT pg_relation_size('pending')")
    async with postgres_database(postgres) as url, billing_on(url) as billing:
        await _fill(billing, 1000, left_alone="pending")
        async with billing.database.reading() as reader:
            assert (await reader.execute(pages)).scalar_one() > 0
        await Upkeep(billing).settle()
        async with billing.database.reading() as reader:
            assert (await reader.execute(pages)).scalar_one() == 0


async def test_a_transaction_that_is_cancelled_holds_nobody_up(ledger_url: URL) -> None:
    """Not even while somebody keeps what is left of it."""
    long = text(
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2000000) "
        "SELECT x FROM n LIMIT 2 OFFSET 1999990"
    )
    begun = asyncio.Event()

    async def write(database: Database, *statements: Executable) -> None:
        async with database.writing(lock=CLOSING) as connection:
            for statement in (delete(pending), *statements):
                await connection.execute(statement)
                begun.set()

    async with billing_on(ledger_url) as billing, billing_on(ledger_url) as other:
        reads = asyncio.create_task(write(billing.database, long))
        await begun.wait()
        await asyncio.sleep(0.05)  # by now it is in the middle of the long one
        reads.cancel()
        await asyncio.wait([reads])
        async with asyncio.timeout(20):
            await write(other.database)
            await write(billing.database)
        assert reads.cancelled()


async def test_a_step_that_fails_in_any_way_is_tried_again(ledger_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_FAILED_SECONDS", 0)
    done = asyncio.Event()
    calls = 0

    async def step() -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyError("nobody thought of this")
        done.set()
        return False

    async with billing_on(ledger_url) as billing:
        work = Upkeep(billing)
        monkeypatch.setattr(work, "aggregate", step)
        work.start()
        async with asyncio.timeout(30):
            await done.wait()
        await work.stop()

"""What readers and writers of the ledger may rely on, on real servers."""

from __future__ import annotations

import pytest
from billing_api import billing_on, event
from ledgers import postgres_database
from sqlalchemy import func, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from sidecar.billing.ledger.tables import outcomes, pending
from sidecar.billing.upkeep import Upkeep


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

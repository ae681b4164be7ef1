"""Which entries a claim finds where a customer's go alone, and how much it reads for that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from exporting import METER, Setting, exporting
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.event import listens_for, remove

from sidecar.billing.exports.outbox import CLAIM_US, claim
from sidecar.billing.exports.tables import export_events, export_meters

AHEAD_US = 600_000_000


def entry(number: int, customer: str, now_us: int, **more: Any) -> dict[str, Any]:
    return {
        "target": "stripe_v1", "meter": METER, "outcome_id": f"out_{number}", "number": 0, "customer": customer,
        "period": "2026-11", "quantity": "1", "at_us": now_us, "created_us": now_us, "id": f"exp_{number}",
        "state": "waiting", "alone": False, "attempts": 0, "keys_spent": 0, "next_us": now_us, **more,
    }  # fmt: skip


async def write(it: Setting, rows: list[dict[str, Any]]) -> None:
    database = it.api.billing.database
    async with database.writing() as connection:
        for start in range(0, len(rows), 1000):
            await connection.execute(export_events.insert(), rows[start : start + 1000])
        if not database.sqlite:
            await connection.execute(text("ANALYZE export_events"))


async def claimed(it: Setting, most: int = 8) -> list[tuple[str, str, str]]:
    """Meter, customer and id of what one claim gets."""
    taken = await claim(it.api.billing.database, it.replicas[0].destinations[0], it.clock.now_us, most) or []
    return [(one.row["meter"], one.row["customer"], one.row["id"]) for batch in taken for one in batch]


async def test_a_customer_with_very_many_entries_hides_nobody(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["stripe_v1"]) as it:
        now = it.clock.now_us
        rows = [entry(number, "whale", now - 500 + number) for number in range(300)]
        # Due later, but written earlier, so not among those that are looked at first.
        rows += [entry(1000 + number, f"customer-{number}", now) for number in range(9)]
        rows += [entry(2000, "customer-3", now, next_us=now - 1), entry(3000, "nobody", now, next_us=now + AHEAD_US)]
        await write(it, rows)
        first = await claimed(it)
        assert {(customer, identifier) for _, customer, identifier in first} == {
            ("whale", "exp_0"), *((f"customer-{number}", f"exp_{1000 + number}") for number in (0, 1, 2, 4, 5, 6, 7))
        }  # fmt: skip
        assert await claimed(it, 1) == [(METER, "customer-8", "exp_1008")]
        assert await claimed(it) == [(METER, "customer-3", "exp_2000")], "the one that is due first"
        assert await claimed(it) == []
        it.clock.now_us += CLAIM_US
        assert len(await claimed(it)) == 8, "whoever had them is gone"


async def test_meters_are_ways_of_their_own_and_those_of_no_file_get_nothing(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["stripe_v1"], codes=[METER, "other"]) as it:
        now = it.clock.now_us
        async with it.api.billing.database.writing() as connection:
            await connection.execute(export_meters.insert(), [{"target": "stripe_v1", "meter": "gone", "since_us": 0}])
        rows = [entry(number, "whale", now) for number in range(100)]
        rows += [entry(200, "whale", now, meter="other"), entry(201, "whale", now, meter="gone")]
        rows += [entry(300, "whale", now, target="another")]
        rows += [entry(301, "shrimp", now, target="another", claim="x", next_us=now + AHEAD_US)]
        rows += [entry(302, "shrimp", now, next_us=now)]
        await write(it, rows)
        assert sorted(await claimed(it)) == [
            ("other", "whale", "exp_200"), (METER, "shrimp", "exp_302"), (METER, "whale", "exp_0")
        ]  # fmt: skip


@asynccontextmanager
async def asked(it: Setting) -> AsyncIterator[list[tuple[str, Any]]]:
    """What is asked of the outbox meanwhile."""
    found: list[tuple[str, Any]] = []
    engine = it.api.billing.database.engine.sync_engine

    @listens_for(engine, "before_cursor_execute")
    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if "SELECT" in statement and "FROM export_events" in statement:
            found.append((statement, parameters))

    try:
        yield found
    finally:
        remove(engine, "before_cursor_execute", note)


async def work(it: Setting) -> int:
    """How much the questions of a claim read, which finds nothing: steps of SQLite, or PostgreSQL's pages."""
    database = it.api.billing.database
    async with asked(it) as questions:
        assert await claimed(it) == []
    assert questions
    total = 0
    async with database.writing() as connection:
        for statement, parameters in questions:
            if database.sqlite:
                raw = (await connection.get_raw_connection()).driver_connection
                steps = [0]

                def step(steps: list[int] = steps) -> int:
                    steps[0] += 1
                    return 0

                await raw.set_progress_handler(step, 1)
                await connection.exec_driver_sql(statement, parameters)
                await raw.set_progress_handler(None, 1)
                total += steps[0]
            else:
                explain = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}"
                plan = (await connection.exec_driver_sql(explain, parameters)).scalar_one()[0]["Plan"]
                total += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return total


async def test_what_a_claim_reads_does_not_grow_with_how_many_wait(ledger_url: URL) -> None:
    """Three customers have something on its way, and very many entries that are due."""
    found = {}
    async with exporting(ledger_url, ["stripe_v1"]) as it:
        now, written = it.clock.now_us, 0
        for number in (300, 3000):
            rows = [entry(one, f"whale-{one % 3}", now) for one in range(written, number)]
            await write(it, rows)
            if not written:
                assert len(await claimed(it)) == 3
            written = number
            found[number] = await work(it)
    assert found[3000] < 1.5 * found[300], found


async def test_a_correction_waits_only_for_earlier_entries_of_its_outcome_at_its_meter(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["lago"]) as it:
        now, later = it.clock.now_us, it.clock.now_us + AHEAD_US
        before = [
            {"next_us": later}, {"state": "parked"}, {"state": "acknowledged"},
            {"next_us": later, "target": "another"}, {"meter": "of no file"},
        ]  # fmt: skip
        rows = []
        for number, first in enumerate(before):
            second = {"outcome_id": f"out_{number}", "number": 1, "quantity": "-1"}
            rows.append(entry(number, "a", now) | {"target": "lago"} | first)
            rows.append(entry(100 + number, "a", now) | {"target": "lago"} | second)
        await write(it, rows)
        assert sorted(identifier for _, _, identifier in await claimed(it)) == ["exp_102", "exp_103", "exp_104"]
        assert await claimed(it) == []


async def test_what_was_acknowledged_since_it_was_found_is_not_claimed(
    ledger_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer may come late, to whoever had it before."""
    async with exporting(ledger_url, ["stripe_v1"]) as it:
        now = it.clock.now_us
        await write(it, [entry(0, "a", now) | {"seq": 1}, entry(1, "b", now) | {"seq": 2, "state": "acknowledged"}])

        async def before(*_: Any) -> list[int]:
            return [1, 2]

        monkeypatch.setattr("sidecar.billing.exports.outbox.firsts", before)
        assert await claimed(it) == [(METER, "a", "exp_0")]


async def test_a_claim_reads_no_more_entries_than_it_takes(ledger_url: URL) -> None:
    async with exporting(ledger_url, ["lago"]) as it:
        await write(it, [entry(number, "a", it.clock.now_us) | {"target": "lago"} for number in range(250)])
        async with asked(it) as questions:
            assert len(await claimed(it, 2)) == 200
        looked = [statement for statement, _ in questions if "next_us <= " in statement]
        assert len(looked) == 2
        assert all("LIMIT" in statement for statement in looked), looked

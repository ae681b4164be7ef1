"""`python -m bench ledger`: what the ledger takes, beside a raw INSERT of the same rows, and what reading it costs: an
invoice, and the summary of a month over all customers.

Ingest is everything from the bytes of a request's body to the verdicts, on disk: reading, checking, canonical form,
insert. The raw INSERT puts the same finished rows into a table with the same indexes, in transactions of
the same 100 rows, through the same driver and with the same durability. Rounds alternate between the two.

Summing up what was taken is measured apart: it runs beside the API, on whichever replica, and no reader waits for it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.engine import URL

from bench.report import machine
from sidecar.billing.events import Posted, read_body, read_event
from sidecar.billing.ledger.append import arrays_statement, drive, insert, values
from sidecar.billing.ledger.database import Database, database_url, sqlite_url
from sidecar.billing.ledger.tables import outcomes
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.sections import DEFAULT_PLAN
from sidecar.billing.service import Billing
from sidecar.billing.upkeep import Upkeep
from sidecar.policy.loading import builtin_plan

BATCH = 100
CLIENTS = 4
SIZES = [10_000, 100_000, 1_000_000]
INGEST_GOAL = 0.5
INVOICE_GOAL_MS = 50.0
SUMMARY_GOAL_MS = 200.0
CUSTOMERS = 200
_RESULTS = Path(__file__).parent / "results"
_MONTH = Period(2026, 11)
_READS = 30


@dataclass
class Measured:
    """Of one database: events per second by round; milliseconds of an invoice by its number of outcomes, and of the
    summary by the number of outcomes that it sums up.
    """

    database: str
    ingest: list[float] = field(default_factory=list)
    raw: list[float] = field(default_factory=list)
    summed: float = 0.0
    invoice_ms: dict[int, float] = field(default_factory=dict)
    summary_ms: dict[int, float] = field(default_factory=dict)
    ratio: float = 0.0


def event(number: int, customer: str) -> dict[str, Any]:
    """What a sidecar posts."""
    day, second = 1 + number % 28, number % 86_400
    clock = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
    data = {
        "session_id": f"ses_{number:032x}", "conversation": f"c-{number}", "tenant": "acme", "outcome": "RESOLVED",
        "state": "RESOLVED", "confirmation": "CONFIRMED", "escalated_to_human": False, "reason": "resolve tool",
        "revision": 0, "reverses": None, "held": False, "billable": True, "shadow": False,
        "started_at": f"2026-11-{day:02d}T{clock}.000Z", "ended_at": f"2026-11-{day:02d}T{clock}.500Z",
        "turns": 5, "llm_calls": 7, "tool_calls": 2, "models": ["gpt-4o"], "tokens": {"input": 1234, "output": 345},
        "complete": True, "plan": {"name": "AI Resolution", "digest": "sha256:" + "0" * 64}, "attributes": {},
        "evidence": [{
            "at": f"2026-11-{day:02d}T{clock}.000Z", "rule": "resolve_tool", "kind": "tool_call",
            "digest": "hmac-sha256:" + "0" * 64,
        }],
    }  # fmt: skip
    return {
        "specversion": "1.0", "id": f"out_{number:032x}", "source": "sidecar/acme", "type": "sidecar.outcome.v1",
        "subject": customer, "time": f"2026-11-{day:02d}T{clock}.500Z", "datacontenttype": "application/json",
        "data": data,
    }  # fmt: skip


def bodies(first: int, count: int, customers: int) -> list[bytes]:
    """Requests of 100 events each, spread over customers, as the courier writes them."""
    return [
        orjson.dumps(
            [event(n, f"customer-{n % customers}") for n in range(start, start + BATCH)], option=orjson.OPT_SORT_KEYS
        )
        for start in range(first, first + count, BATCH)
    ]


def checked(body: bytes) -> list[Posted]:
    """The events of a request."""
    content, forms = read_body(body)
    return [read_event(value, form) for value, form in zip(content, forms or (), strict=True)]


def expect(found: object, wanted: object) -> None:
    """A benchmark of something that does not work measures nothing."""
    if found != wanted:
        raise RuntimeError(f"{found} instead of {wanted}")


async def ingest(billing: Billing, requests: Sequence[bytes]) -> float:
    """Events per second, several clients at once."""
    waiting = iter(requests)

    async def client() -> None:
        for body in waiting:
            receipt = await billing.post(*read_body(body))
            expect(receipt.accepted, BATCH)

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return len(requests) * BATCH / (time.perf_counter() - start)


async def raw_insert(database: Database, rows: Sequence[list[tuple[Any, ...]]]) -> float:
    """Rows per second into a table like the ledger's."""
    table = outcomes.to_metadata(type(outcomes.metadata)(), name="raw_outcomes")
    start = time.perf_counter()
    for batch in rows:
        if database.sqlite:
            async with database.writing() as connection:
                await insert(connection, table, batch)
        else:  # a statement is a transaction of its own: nothing is asked of the server but the INSERT
            async with database.engine.connect() as connection:
                statement = arrays_statement(table)
                await drive(connection, "fetch", statement, statement, *map(list, zip(*batch, strict=True)))
    return len(rows) * BATCH / (time.perf_counter() - start)


async def make_raw_table(database: Database) -> None:
    """The same columns, indexes and triggers as the ledger's own."""
    async with database.writing() as connection:
        if database.sqlite:
            query = (
                "SELECT sql FROM sqlite_master WHERE tbl_name = 'outcomes' AND sql IS NOT NULL "
                "AND name <> 'outcomes_noted'"  # part of ingest
            )
            made = [row[0] for row in await connection.execute(text(query))]
            for statement in sorted(made, key=lambda sql: not sql.startswith("CREATE TABLE")):
                await connection.exec_driver_sql(statement.replace("outcomes", "raw_outcomes"))
            return
        await connection.exec_driver_sql("CREATE TABLE raw_outcomes (LIKE outcomes INCLUDING ALL)")
        await connection.exec_driver_sql(
            "CREATE TRIGGER raw_append_only BEFORE UPDATE OR DELETE ON raw_outcomes "
            "FOR EACH ROW EXECUTE FUNCTION ledger_is_append_only()"
        )


async def measure(name: str, url: URL, options: argparse.Namespace) -> Measured:
    """One database."""
    found = Measured(name)
    database = Database(url)
    await database.migrate()
    billing = Billing(database)
    await billing.put_plan(DEFAULT_PLAN, builtin_plan())
    await make_raw_table(database)
    work, first = Upkeep(billing), 0
    for number in range(options.rounds):
        requests = bodies(first, options.events, customers=CUSTOMERS)
        rows = [[values(one, 0) for one in checked(body)] for body in requests]
        first += options.events
        gc.collect()
        gc.freeze()  # as the process does once it has started; what was made here to be measured is no part of it
        measured = [("ingest", found.ingest), ("raw", found.raw)]
        for what, rates in measured if number % 2 else reversed(measured):
            rates.append(await (ingest(billing, requests) if what == "ingest" else raw_insert(database, rows)))
    found.ratio = statistics.median(one / other for one, other in zip(found.ingest, found.raw, strict=True))
    start = time.perf_counter()
    await work.settle()
    found.summed = first / (time.perf_counter() - start)
    for size in options.sizes:
        found.invoice_ms[size], summary_ms = await reading_ms(billing, work, first, size)
        first += size
        found.summary_ms[first] = summary_ms
    await database.close()
    return found


async def reading_ms(billing: Billing, work: Upkeep, first: int, size: int) -> tuple[float, float]:
    """Median times of an invoice over so many outcomes of one customer and of the summary of all outcomes, the newest
    hundred of them not summed up.
    """
    customer = f"customer-of-{size}"
    for start in range(first, first + size - BATCH, BATCH):
        posted = checked(
            orjson.dumps([event(n, customer) for n in range(start, start + BATCH)], option=orjson.OPT_SORT_KEYS)
        )
        async with billing.database.writing() as connection:
            await insert(connection, outcomes, [values(one, 0) for one in posted])
    await work.settle()
    last = [event(n, customer) for n in range(first + size - BATCH, first + size)]
    expect((await billing.post(last)).accepted, BATCH)
    invoices, summaries = [], []
    for _ in range(_READS):
        start_s = time.perf_counter()
        made = await billing.invoice(customer, _MONTH)
        middle_s = time.perf_counter()
        summed = await billing.summary(_MONTH)
        invoices.append((middle_s - start_s) * 1000)
        summaries.append((time.perf_counter() - middle_s) * 1000)
        expect(made["lines"][0]["quantity"], size)
        expect(summed["sessions"], first + size)
    return statistics.median(invoices), statistics.median(summaries)


@asynccontextmanager
async def postgres() -> AsyncIterator[URL]:
    """A real server out of a wheel, with its settings as they come."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        from pgserver import postgres_server  # noqa: PLC0415  its import complains about the machine

        server = postgres_server.get_server(folder)
        try:
            yield database_url(server.get_uri())
        finally:
            server.cleanup()


async def run(options: argparse.Namespace) -> list[Measured]:
    """Both databases, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        found = [await measure("SQLite", sqlite_url(Path(folder) / "ledger.sqlite3"), options)]
    async with postgres() as url:
        found.append(await measure("PostgreSQL", url, options))
    return found


def markdown(found: Sequence[Measured], options: argparse.Namespace, load: Sequence[float]) -> str:
    """The page for people."""
    lines = [
        f"# The ledger beside a raw INSERT, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"Machine: {machine()}.",
        f"Load average before and after: {' and '.join(f'{one:.1f}' for one in load)}; above 0.5,",
        "neighbours were at work, and ratios tell more than rates.",
        "",
        f"{options.rounds} rounds of {options.events} events in requests of {BATCH}, {CLIENTS} clients, one process on",
        "one core; medians. `ratio` is ingest by raw INSERT of the same rows in the same round.",
        "",
        "| database | ingest, events/s | raw INSERT, rows/s | ratio | summing up, events/s |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.database} | {statistics.median(one.ingest):.0f} | {statistics.median(one.raw):.0f} "
        f"| {one.ratio:.2f} | {one.summed:.0f} |"
        for one in found
    ]
    lines += ["", "An invoice, the newest 100 outcomes not summed up yet, median of 30:", ""]
    lines += ["| outcomes | " + " | ".join(f"{one.database}, ms" for one in found) + " |"]
    lines += ["|---|" + "---|" * len(found)]
    lines += [
        f"| {size} | " + " | ".join(f"{one.invoice_ms[size]:.1f}" for one in found) + " |" for size in options.sizes
    ]
    several = [sorted(one.summary_ms.items()) for one in found]
    lines += ["", f"The summary of the month over {CUSTOMERS} customers and one more a line, likewise:", ""]
    lines += ["| outcomes | " + " | ".join(f"{one.database}, ms" for one in found) + " |"]
    lines += ["|---|" + "---|" * len(found)]
    lines += [
        f"| {row[0][0]} | " + " | ".join(f"{ms:.1f}" for _, ms in row) + " |" for row in zip(*several, strict=True)
    ]
    missed = [f"ingest on {one.database}: {one.ratio:.2f} < {INGEST_GOAL}" for one in found if one.ratio < INGEST_GOAL]
    missed += [
        f"invoice of {size} on {one.database}: {ms:.0f} ms > {INVOICE_GOAL_MS:.0f} ms"
        for one in found
        for size, ms in one.invoice_ms.items()
        if ms > INVOICE_GOAL_MS
    ]
    missed += [
        f"summary of {size} on {one.database}: {ms:.0f} ms > {SUMMARY_GOAL_MS:.0f} ms"
        for one in found
        for size, ms in one.summary_ms.items()
        if ms > SUMMARY_GOAL_MS
    ]
    lines += ["", f"Goals missed: {'; '.join(missed) or 'none'}."]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write bench/results/ledger.md and .json."""
    parser = argparse.ArgumentParser(prog="bench ledger", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of ingest and raw INSERT (default 9)")
    parser.add_argument("--events", type=int, default=10_000, help="events of a round (default 10000)")
    parser.add_argument(
        "--sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], help="outcomes behind an invoice"
    )
    parser.add_argument("--name", default="ledger", help="name of the files in bench/results")
    options = parser.parse_args(arguments)
    load = [os.getloadavg()[0]]
    found = asyncio.run(run(options))
    load.append(os.getloadavg()[0])
    page = markdown(found, options, load)
    sys.stdout.write(page)
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / f"{options.name}.md").write_text(page)
    told = {"machine": machine(), "load": load, "measured": [asdict(one) for one in found]}
    (_RESULTS / f"{options.name}.json").write_text(json.dumps(told, indent=1) + "\n")
    return 0

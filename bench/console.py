"""`python -m bench console`: how long the pages of the console take when the ledger is large.

The ledger is filled as by sidecars, with sessions of every kind, several revisions, ids of tickets and outcomes
that are held or of nobody, and summed up. Then every page is loaded as a browser would, one after the other, over HTTP
on the
loopback, by a client in the same process: what is measured is more than the server's time, by the client's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
from aiohttp import web

from bench.ledger import checked, event, expect
from bench.report import machine
from sidecar.billing.api.server import application
from sidecar.billing.ledger import mentions, waiting
from sidecar.billing.ledger.append import insert, values
from sidecar.billing.ledger.database import Database, sqlite_url
from sidecar.billing.ledger.tables import outcomes
from sidecar.billing.rating.sections import DEFAULT_PLAN
from sidecar.billing.service import Billing
from sidecar.billing.tokens import Tokens
from sidecar.billing.upkeep import Upkeep
from sidecar.policy.loading import builtin_plan

GOAL_MS = 200.0
LOADS = 30
LARGE = "customer-large"
_AT_ONCE = 1000
_CUSTOMERS = 200
_RESULTS = Path(__file__).parent / "results"
Loads = Sequence[tuple[float, float]]
_NOW_US = int(datetime(2026, 11, 29, tzinfo=UTC).timestamp()) * 1_000_000


def session(number: int) -> dict[str, Any]:
    """One of many: two of three are resolved, every third is of one large customer, some wait or were taken back."""
    made = event(number, LARGE if number % 3 == 0 else f"customer-{number % _CUSTOMERS}")
    data = made["data"]
    data["conversation"] = None if number % 20 == 0 else f"c-{number // 2}"
    if number % 10 == 7:
        data["attributes"] = {"ticket": f"TCK-{number}", "language": "en"}
    if number % 1000 == 1:
        data["outcome"] = "UPSELL"
    if number % 6 == 1:
        data |= {"state": "NOT_BILLABLE", "outcome": "ESCALATED_TO_HUMAN", "escalated_to_human": True}
        data["reason"] = "ticket assigned to an agent"
    elif number % 6 == 2:
        data |= {"state": "INCONCLUSIVE", "outcome": "INCONCLUSIVE", "reason": "silence", "held": number % 600 == 2}
    if number % 500 == 3:
        made["subject"] = "unattributed"
    return made


def revision(number: int) -> dict[str, Any]:
    """The customer of a session came back."""
    made = session(number)
    data = {
        "state": "REVERSED",
        "outcome": "UNRESOLVED",
        "revision": 1,
        "reverses": made["id"],
        "reason": f"back {number}",
    }
    return {
        **made,
        "id": made["id"] + "r",
        "time": made["time"].replace(".500", ".900"),
        "data": {**made["data"], **data},
    }


def events(count: int) -> Iterator[list[dict[str, Any]]]:
    """So many outcomes, some at once."""
    batch: list[dict[str, Any]] = []
    for number in range(count):
        batch.append(session(number))
        if number % 2000 == 5:
            batch.append(revision(number))
        if len(batch) >= _AT_ONCE:
            yield batch
            batch = []
    yield batch


async def fill(billing: Billing, count: int) -> None:
    """As `Ingest` does it, without its waiting."""
    for batch in events(count):
        posted = checked(orjson.dumps(batch, option=orjson.OPT_SORT_KEYS))
        async with billing.database.writing() as connection:
            await insert(connection, outcomes, [values(one, _NOW_US) for one in posted])
            await mentions.note(connection, posted)
            await waiting.note(connection, posted)


def pages(count: int) -> dict[str, str]:
    """What each is and where it is."""
    some = session(count // 2 + 1)["data"]
    month, invoice = "period=2026-11", f"/customers/{LARGE}/invoice"
    ticket = f"TCK-{count // 2 // 10 * 10 + 7}"
    return {
        "overview": f"/?{month}",
        "customers": f"/customers?{month}",
        "customers, searched": f"/customers?{month}&q=99",
        "a large customer": f"/customers/{LARGE}?{month}",
        "its invoice": f"{invoice}?{month}",
        "sessions of its line": f"{invoice}/lines/pricing?{month}",
        "the same, deep": f"{invoice}/lines/pricing?{month}&after={count // 2}",
        "sessions": "/sessions",
        "sessions, deep": f"/sessions?after={_NOW_US - 14 * 86_400_000_000}.1",
        "by conversation": f"/sessions?q={some['conversation']}",
        "by ticket": f"/sessions?q={ticket}",
        "by session": f"/sessions?q={some['session_id']}",
        "by nothing that exists": "/sessions?q=none-1",
        "of a customer": f"/sessions?customer={LARGE}",
        "of a small customer, by reason": "/sessions?customer=customer-7&reason=agent",
        "unresolved": "/sessions?state=REVERSED",
        "unresolved, of a customer": f"/sessions?state=REVERSED&customer={LARGE}",
        "resolved, of one day": "/sessions?state=RESOLVED&from=2026-11-05&to=2026-11-05",
        "a rare outcome": "/sessions?outcome=UPSELL",
        "held": "/sessions?held=true",
        "a reason that none has": "/sessions?reason=nobody+said+this",
        "one session": f"/sessions/{some['session_id']}",
        "decisions": "/decisions",
        "decisions, made": "/decisions/made",
    }


async def load(client: httpx.AsyncClient, path: str, loads: int) -> Loads:
    """Milliseconds of each load, the first included, and of the processors' time that it took."""
    times = []
    for _ in range(loads):
        start, start_cpu = time.perf_counter(), time.process_time()
        answer = await client.get(path)
        times.append(((time.perf_counter() - start) * 1000, (time.process_time() - start_cpu) * 1000))
        expect((path, answer.status_code), (path, 200))
    return times


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Loads]:
    """Fill a ledger, then load every page."""
    database = Database(sqlite_url(folder / "ledger.sqlite3"))
    await database.migrate()
    billing = Billing(database, lambda: _NOW_US)
    await billing.put_plan(DEFAULT_PLAN, builtin_plan())
    _say(f"filling a ledger with {options.outcomes} outcomes")
    await fill(billing, options.outcomes)
    _say("summing them up")
    await Upkeep(billing).settle()
    runner = web.AppRunner(application(billing, Tokens()), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    found: dict[str, Loads] = {}
    async with httpx.AsyncClient(base_url=base, timeout=600, trust_env=False) as client:
        for name, path in pages(options.outcomes).items():
            found[name] = await load(client, path, options.loads)
            _say(f"{name}: {_median(found[name]):.1f} ms")
    await runner.cleanup()
    await database.close()
    return found


def markdown(found: dict[str, Loads], options: argparse.Namespace, load_: Sequence[float]) -> str:
    """The page for people."""
    lines = [
        f"# The console over {options.outcomes} outcomes, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"Machine: {machine()}. SQLite.",
        f"Load average before and after: {' and '.join(f'{one:.1f}' for one in load_)}; above 0.5,",
        "neighbours were at work.",
        "",
        f"Milliseconds of a page over HTTP, client included; {options.loads} loads one after the",
        "other, with the first.",
        "",
        "| page | first | median | p99 | median of processor time |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {times[0][0]:.0f} | {_median(times):.1f} | {_p99(times):.0f} | {_median(times, 1):.1f} |"
        for name, times in found.items()
    ]
    missed = [name for name, times in found.items() if _median(times) > GOAL_MS]
    lines += ["", f"Goal: a median below {GOAL_MS:.0f} ms. Missed: {', '.join(missed) or 'none'}."]
    return "\n".join(lines) + "\n"


def _median(times: Loads, which: int = 0) -> float:
    return statistics.median(one[which] for one in times)


def _p99(times: Loads) -> float:
    return sorted(wall for wall, _ in times)[min(len(times) - 1, int(len(times) * 0.99))]


def _say(what: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {what}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write bench/results/console.md and .json."""
    parser = argparse.ArgumentParser(prog="bench console", description=__doc__)
    parser.add_argument("--outcomes", type=int, default=1_000_000, help="outcomes in the ledger (default 1000000)")
    parser.add_argument("--loads", type=int, default=LOADS, help=f"loads of each page (default {LOADS})")
    parser.add_argument("--name", default="console", help="name of the files in bench/results")
    options = parser.parse_args(arguments)
    load_ = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(options, Path(folder)))
    load_.append(os.getloadavg()[0])
    page = markdown(found, options, load_)
    sys.stdout.write(page)
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / f"{options.name}.md").write_text(page)
    told = {"machine": machine(), "load": load_, "outcomes": options.outcomes, "milliseconds": found}
    (_RESULTS / f"{options.name}.json").write_text(json.dumps(told, indent=1) + "\n")
    return 0

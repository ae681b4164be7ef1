"""Statements whose hours do not add up, and what holds them against the ledger: tallies by hour, and what waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import httpx
import orjson
import pytest
from alembic import command
from alembic.config import Config
from billing_api import NOW_US, Clock, event, get, post, statement
from session_facts import HOUR, RESOLVE, T0, Talk
from sqlalchemy import Connection, func, select, text
from sqlalchemy import event as listening
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection
from stating import HOUR_US, MINUTE_US, SECOND_US, instant

from sidecar.billing.ledger import reconcile
from sidecar.billing.ledger.append import insert
from sidecar.billing.ledger.database import MIGRATIONS, Database
from sidecar.billing.ledger.stated import TENANTS_MAX, tenants
from sidecar.billing.ledger.tables import statements, tallies
from sidecar.billing.ledger.tallied import Tallied, hour_of, waiting
from sidecar.billing.rating.periods import from_us
from sidecar.delivery.event import event_of


@pytest.fixture
async def database(ledger_url: URL) -> AsyncIterator[Database]:
    found = Database(ledger_url)
    yield found
    await found.close()


@contextmanager
def asked(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """What the database is asked meanwhile, with the parameters."""
    found: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        found.append((statement, parameters))

    listening.listen(database.engine.sync_engine, "before_cursor_execute", note)
    yield found
    listening.remove(database.engine.sync_engine, "before_cursor_execute", note)


def told(number: int, at_us: int, total: int, hours: dict[str, int], before: int = 0) -> dict[str, Any]:
    return statement(number, instant(at_us), total, finalized_by_hour=hours, finalized_before=before)


async def test_hours_that_do_not_add_up_are_shown_and_an_alarm_until_they_do(
    api: httpx.AsyncClient, clock: Clock
) -> None:
    await post(api, *(event(n) for n in range(5)))
    await post(api, told(1, NOW_US, 5, {"2026-11-22T10": 2}, 1))
    found = await get(api, "/v1/books")
    [tenant] = found["tenants"]
    assert (tenant["stated"]["untold"], found["alarm"]) == (2, True)
    assert tenant["compared"] == {"stated": 5, "arrived": 4}, "the one before is not here; the two of no hour are"
    await post(api, told(2, NOW_US + SECOND_US, 5, {"2026-11-22T10": 5}, 1))
    found = await get(api, "/v1/books")
    assert (found["tenants"][0]["stated"]["untold"], found["alarm"]) == (-1, True)
    clock.now_us += HOUR_US
    await post(api, told(3, clock.now_us, 5, {"2026-11-22T10": 4, "2026-11-22T09": 0}, 0))
    await post(api, told(4, clock.now_us + SECOND_US, 5, {"2026-11-22T10": 5}))
    assert (await get(api, "/v1/books"))["tenants"][0]["stated"]["untold"] == 0
    clock.now_us += HOUR_US
    found = await get(api, "/v1/books")
    assert (found["difference"], found["alarm"]) == (0, False)


async def test_a_statement_without_hours_says_nothing_of_them(api: httpx.AsyncClient) -> None:
    await post(api, event(0), event(1), statement(1, instant(NOW_US), 2))
    found = await get(api, "/v1/books")
    assert (found["tenants"][0]["stated"]["untold"], found["alarm"], found["difference"]) == (0, False, 0)


class Upgraded:
    """A sidecar on a real Redis that began with a version that wrote no hours, delivering to a real ledger."""

    def __init__(self, talk: Talk, api: httpx.AsyncClient, clock: Clock) -> None:
        self.talk, self.api, self.clock = talk, api, clock
        self.delivered = b"-"
        self.lost = set[int]()

    async def resolve(self, *times_ms: int) -> None:
        for at in times_ms:
            await self.talk.say(at, f"c-{at}", effects=(RESOLVE,))

    async def forget_hours(self) -> None:
        await self.talk.store.redis.delete(self.talk.store.key("finalized"))

    async def deliver(self, now_ms: int, *, lost: int = 0) -> dict[str, Any]:
        """Everything that is in the outbox but so many outcomes; the books as they are an hour later."""
        assert await self.talk.store.statement(T0 + now_ms) == 1
        self.clock.now_us = (T0 + now_ms) * 1000
        for identifier, fields in await self.talk.store.redis.xrange(self.talk.store.key("outbox"), self.delivered):
            self.delivered = b"(" + identifier
            kind = fields[b"kind"].decode()
            if kind == "outcome" and lost:
                lost -= 1
                continue
            await post(self.api, orjson.loads(event_of(kind, fields[b"body"]).body))
        self.clock.now_us += HOUR_US
        return await get(self.api, "/v1/books")


@pytest.fixture
def upgraded(talk: Talk, api: httpx.AsyncClient, clock: Clock) -> Upgraded:
    return Upgraded(talk, api, clock)


async def test_an_upgrade_is_no_alarm(upgraded: Upgraded) -> None:
    await upgraded.resolve(0, 1, HOUR)
    await upgraded.forget_hours()
    for hour in range(1, 8):
        found = await upgraded.deliver(hour * HOUR)
        [tenant] = found["tenants"]
        assert (found["difference"], found["alarm"], tenant["stated"]["untold"]) == (0, False, 0)
        assert tenant["compared"] == {"stated": hour + 2, "arrived": hour + 2}
        await upgraded.resolve(hour * HOUR + 5)


async def test_what_was_lost_before_an_upgrade_hides_behind_nothing_that_comes_later(upgraded: Upgraded) -> None:
    await upgraded.resolve(0, 1, 2)
    await upgraded.forget_hours()
    assert (await upgraded.deliver(HOUR, lost=1))["alarm"]
    for hour in range(3, 8):
        await upgraded.resolve(hour * HOUR + 5, hour * HOUR + 6)
        found = await upgraded.deliver(hour * HOUR + 7)
        assert (found["difference"], found["alarm"]) == (1, True)


async def test_a_sidecar_that_forgets_to_count_hours_alarms_every_hour_and_what_it_loses_is_missing(
    upgraded: Upgraded,
) -> None:
    await upgraded.resolve(0)
    assert not (await upgraded.deliver(0))["alarm"]
    for hour in range(3, 6):
        kept = await upgraded.talk.store.redis.hgetall(upgraded.talk.store.key("finalized"))
        await upgraded.resolve(hour * HOUR)
        await upgraded.forget_hours()
        await upgraded.talk.store.redis.hset(upgraded.talk.store.key("finalized"), mapping=kept)
        found = await upgraded.deliver(hour * HOUR + 1, lost=hour == 5)
        assert (found["tenants"][0]["stated"]["untold"], found["alarm"]) == (1, True)
        assert found["difference"] == (hour == 5)


async def test_what_is_tallied_is_what_is_there(api: httpx.AsyncClient) -> None:
    """Over any stretch of time, of either tenant, whether it is summed up or waits to be."""
    random = Random(5)
    times = [NOW_US + random.randrange(4 * HOUR_US) for _ in range(150)]
    times += [NOW_US + HOUR_US, NOW_US + HOUR_US - 1, NOW_US + 2 * HOUR_US]
    whose = ["acme" if n % 3 else "b" for n in range(len(times))]
    events = [event(n, time=from_us(at_us).isoformat(), data={"tenant": whose[n]}) for n, at_us in enumerate(times)]
    mine = [at_us for n, at_us in enumerate(times) if whose[n] == "acme"]
    await post(api, *events[:80])
    await api.upkeep.settle()
    await post(api, *events[80:])
    marks = [NOW_US + n * HOUR_US + d for n in range(5) for d in (0, 1, -1)]
    marks += [NOW_US + random.randrange(4 * HOUR_US) for _ in range(40)]
    for _ in range(2):
        async with api.billing.database.reading() as connection:
            tallied = Tallied(connection, "acme", (await waiting(connection)).get("acme", Counter()))
            for start_us in random.sample(marks, 20):
                end_us = random.choice(marks)
                assert await tallied.between(start_us, end_us) == sum(start_us <= us < end_us for us in mine)
                assert await tallied.between(start_us) == sum(start_us <= us for us in mine)
            hours = await tallied.by_hour(NOW_US, NOW_US + 3 * HOUR_US)
            wanted = [hour_of(us) for us in mine if us < NOW_US + 3 * HOUR_US]
            assert hours == {hour_us: wanted.count(hour_us) for hour_us in wanted}
            rows = (await connection.execute(select(func.count()).select_from(tallies))).scalar_one()
            assert rows <= 2 * 5, "one for each tenant and hour"
        await api.upkeep.settle()


async def test_an_hour_in_part_is_counted_from_its_nearer_end(api: httpx.AsyncClient) -> None:
    times = [NOW_US + minute * MINUTE_US for minute in range(60)]
    await post(api, *(event(n, time=instant(at_us)) for n, at_us in enumerate(times)))
    await api.upkeep.settle()
    async with api.billing.database.reading() as connection:
        tallied = Tallied(connection, "acme", Counter())
        for minute in (1, 29, 31, 59):
            with asked(api.billing.database) as found:
                assert await tallied.between(0, NOW_US + minute * MINUTE_US) == minute
            [(*_, first_us, last_us)] = [parameters for one, parameters in found if "outcomes" in one]
            assert last_us - first_us == min(minute, 60 - minute) * MINUTE_US


async def test_what_waits_is_read_once_for_all_tenants(api: httpx.AsyncClient) -> None:
    for n, name in enumerate(("a", "b", "c")):
        one = statement(n, instant(NOW_US), 2, tenant=name)
        await post(api, event(2 * n, data={"tenant": name}), event(2 * n + 1, data={"tenant": name}))
        await post(api, {**one, "subject": name})
    with asked(api.billing.database) as found:
        books = await api.billing.books()
    assert [one["compared"]["arrived"] for one in books.tenants] == [2, 2, 2]
    assert sum("pending" in one for one, _ in found) == 1
    with asked(api.billing.database) as found:
        await get(api, "/v1/books")
    assert sum("pending" in one for one, _ in found) == 1


async def test_minutes_that_an_earlier_version_tallied_lie_in_their_hours(database: Database) -> None:
    """Those from before the migration, and those that a replica writes that is not replaced yet."""

    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0010")

    add = text("INSERT INTO tallies (tenant, minute_us, sessions) VALUES (:tenant, :minute_us, :sessions)")
    minutes = [
        {"tenant": tenant, "minute_us": NOW_US + minute * MINUTE_US, "sessions": minute + 1}
        for tenant in ("acme", "b")
        for minute in (0, 1, 59, 60, 119, 180)
    ]
    async with database.writing() as connection:
        await connection.run_sync(upgrade)
        await connection.execute(add, minutes)
    await database.migrate()
    async with database.writing() as connection:
        rows = (await connection.execute(select(tallies).where(tallies.c.tenant == "acme"))).all()
        assert sorted(rows) == [
            ("acme", NOW_US, 63), ("acme", NOW_US + HOUR_US, 181), ("acme", NOW_US + 3 * HOUR_US, 181),
        ]  # fmt: skip
        await connection.execute(add, [{"tenant": "acme", "minute_us": NOW_US + 7 * MINUTE_US, "sessions": 5}])
    async with database.reading() as connection:
        tallied = Tallied(connection, "acme", Counter())
        found = await tallied.by_hour(NOW_US, NOW_US + 2 * HOUR_US)
        assert found == {NOW_US: 68, NOW_US + HOUR_US: 181}
        assert await tallied.between(0, NOW_US + HOUR_US) == 68


async def _state(database: Database, names: list[str], each: int) -> None:
    made = ((name, n) for name in names for n in range(each))
    rows = [(f"{name}-{n}", "sidecar/x", name, n, n, "", "{}") for name, n in made]
    async with database.writing() as connection:
        await insert(connection, statements, rows)
    if not database.sqlite:
        async with database.writing() as connection:
            await connection.execute(text("ANALYZE statements"))


async def _work(database: Database, connection: AsyncConnection) -> int:
    """What finding the tenants takes: instructions of SQLite's machine, rows that PostgreSQL reads of the table."""
    if database.sqlite:
        steps = []
        raw = (await connection.get_raw_connection()).driver_connection
        await raw.set_progress_handler(lambda: steps.append(1), 1)
        await tenants(connection)
        await raw.set_progress_handler(None, 1)
        return len(steps)
    with asked(database) as found:
        await tenants(connection)
    [(query, parameters)] = found
    explained = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", parameters)
    plans, rows = [explained.scalar_one()[0]["Plan"]], 0
    while plans:
        plan = plans.pop()
        plans += plan.get("Plans", [])
        if plan.get("Relation Name") == "statements":
            rows += (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return rows


async def test_tenants_are_found_without_reading_all_that_they_stated(database: Database) -> None:
    await database.migrate()
    names = [f"tenant-{n:02}" for n in range(12)]
    async with database.reading() as connection:
        assert await tenants(connection) == []
    work, known = [], []
    for each in (40, 400):
        new = [f"{name}-{each}" for name in names]
        known = sorted([*known, *new])
        await _state(database, new, each)
        async with database.reading() as connection:
            assert await tenants(connection) == known
            work.append(await _work(database, connection))
    # Twice as many tenants, and eleven times as many statements.
    assert work[0] < work[1] < 3 * work[0]
    if not database.sqlite:
        assert work[1] <= 2 * len(names) + 1


async def test_the_first_tenants_are_looked_at_and_that_there_are_more_is_said(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TENANTS_MAX == 1000
    monkeypatch.setattr(reconcile, "TENANTS_MAX", 3)
    for n in range(4):
        assert not (await get(api, "/v1/books"))["more"]
        await post(api, {**statement(n, instant(NOW_US), 2), "subject": f"t{n}"})
    found = await get(api, "/v1/books")
    assert ([one["tenant"] for one in found["tenants"]], found["more"]) == (["t0", "t1", "t2"], True)
    async with api.billing.database.reading() as connection:
        assert await tenants(connection, 2) == ["t0", "t1"]

"""What sidecars state against what has arrived, and an older ledger brought to today's schema."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
from alembic import command
from alembic.config import Config
from billing_api import Clock, event, get, post, reversal, serving, statement
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL

from sidecar.billing.events import read_event
from sidecar.billing.ledger.append import values
from sidecar.billing.ledger.database import MIGRATIONS, Database
from sidecar.billing.ledger.tables import outcomes

HOUR_US = 3_600_000_000


async def books(api: httpx.AsyncClient) -> dict:
    """The same whether events are summed up or not."""
    before = await get(api, "/v1/books")
    await api.upkeep.settle()
    assert await get(api, "/v1/books") == before
    return before


async def test_a_difference_is_shown_and_alarms_when_outboxes_had_time(api: httpx.AsyncClient, clock: Clock) -> None:
    assert await books(api) == {"tenants": [], "more": False, "difference": 0, "alarm": False}
    await post(api, *(event(n) for n in range(8)), reversal(20, of=1, time="2026-11-22T10:00:00Z"))
    await post(api, event(30, data={"tenant": "other"}))
    await post(api, statement(1, "2026-11-22T10:00:00Z", 10))
    found = await books(api)
    [tenant] = found["tenants"]
    assert (tenant["difference"], found["alarm"]) == (2, False), "they may be in an outbox"
    assert tenant["compared"] == {"stated": 10, "arrived": 8}
    clock.now_us += HOUR_US
    assert (await books(api))["alarm"] is True
    metrics = (await api.get("/metrics")).text
    assert 'sidecar_billing_statement_difference{tenant="acme"} 2.0' in metrics
    assert 'sidecar_billing_statement_alarm{tenant="acme"} 1.0' in metrics
    await post(api, event(8), event(9, time="2026-11-22T09:00:00Z"))
    found = await books(api)
    assert (found["difference"], found["alarm"]) == (0, False)
    assert 'sidecar_billing_events_total{result="accepted"} 13.0' in (await api.get("/metrics")).text


async def test_counters_that_began_anew_are_compared_by_their_growth(api: httpx.AsyncClient, clock: Clock) -> None:
    await post(api, *(event(n, time="2026-11-22T08:30:00Z") for n in range(50)))
    await post(api, statement(1, "2026-11-22T09:00:00Z", 50))
    await post(api, statement(2, "2026-11-22T10:00:00Z", 5, "g2"))
    await post(api, *(event(n, time="2026-11-22T10:30:00Z") for n in range(60, 63)))
    clock.now_us += HOUR_US
    await post(api, statement(3, "2026-11-22T11:00:00Z", 8, "g2"))
    [tenant] = (await books(api))["tenants"]
    assert (tenant["since"], tenant["compared"], tenant["difference"]) == (
        "2026-11-22T10:00:00Z", {"stated": 3, "arrived": 3}, 0,
    )  # fmt: skip


async def test_counters_that_do_not_add_up_alarm_at_once(api: httpx.AsyncClient) -> None:
    await post(api, *(event(n) for n in range(4)), statement(1, "2026-11-22T10:00:00Z", 4, opened=9))
    found = await books(api)
    assert (found["tenants"][0]["stated"]["unexplained"], found["alarm"]) == (3, True)
    await post(api, statement(2, "2026-11-22T11:00:00Z", 4, finalized="many"))
    assert (await books(api)) == found, "a statement of another make is no statement"


async def test_an_older_ledger_is_brought_to_todays_schema(ledger_url: URL) -> None:
    database = Database(ledger_url)

    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    columns = [column.name for column in outcomes.c if column.name not in {"seq", "late"}]
    async with database.writing() as connection:
        await connection.run_sync(upgrade)
        insert = text(f"INSERT INTO outcomes ({', '.join(columns)}) VALUES ({', '.join(':' + c for c in columns)})")
        for number in range(150):
            posted = read_event(event(number))
            await connection.execute(insert, dict(zip(columns, values(posted, 0)[:-1], strict=True)))
        await connection.execute(
            text(
                "INSERT INTO customer_versions (customer, version, effective_us, body) VALUES ('customer-17', 1, 0, :b)"
            ),
            {"b": json.dumps({"seat_tier": "PRO"})},
        )
    await database.close()
    async with serving(ledger_url) as api:
        for _ in range(2):  # pending, and summed up
            made = await get(api, "/v1/customers/customer-17/invoice", period="2026-11")
            assert (made["lines"][0]["quantity"], made["total"]) == (150, "49.50")
            await api.upkeep.settle()
        assert (await get(api, "/v1/customers/customer-17"))["seat_tier"] == "PRO"
        assert (await post(api, event(7)))["duplicates"] == 1


def test_the_migrations_stand_in_a_row() -> None:
    found = sorted(path.stem for path in (Path(MIGRATIONS) / "versions").glob("m*.py"))
    assert [name[1:5] for name in found] == [f"{number:04d}" for number in range(1, len(found) + 1)]

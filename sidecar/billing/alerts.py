"""Alerts about spending: noted once per customer, section and percentage, delivered until they are taken.

The row in `alerts` is made in the transaction that sums up what crosses the line, and its key is unique, so replicas
note an alert once between them. It is also the outbox: a delivery is claimed by pushing its next attempt into the
future, and repeated, with the same `webhook-id`, until the receiver answers 2xx.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets as randomness
from collections.abc import Callable, Mapping
from decimal import localcontext
from typing import Any

import httpx
import structlog
from sqlalchemy import func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger import spending
from sidecar.billing.ledger.catalog import Catalog, born_us, registered
from sidecar.billing.ledger.database import Database
from sidecar.billing.ledger.entries import account_rows, chunks
from sidecar.billing.ledger.tables import alerts, rated, secrets
from sidecar.billing.rating.account import UNATTRIBUTED, Account
from sidecar.billing.rating.cost import Cost, Costs
from sidecar.billing.rating.invoice import alerts_reached, money, timestamp
from sidecar.billing.rating.movements import ENTERED, Movements, State, movements_of
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT, round_amount
from sidecar.billing.signing import SECRET_PREFIX, signature

log = structlog.get_logger()
ALERT_TYPE = "billing.spend_alert"
ATTEMPTS_MAX = 40  # the last of them about a week after the first
_FIRST_RETRY_US, _LONGEST_RETRY_US = 5_000_000, 6 * 3_600_000_000
_CLAIM_US = 60_000_000  # how long a delivery belongs to the replica that took it
_TIMEOUT_SECONDS = 15.0
_AT_ONCE = 20
_OPEN_MAX = 12  # periods back from now that are looked at: more are not open unless none is ever closed


async def note_alerts(
    connection: AsyncConnection, catalog: Catalog, sums: Mapping[str, Movements], now_us: int
) -> None:
    """Note the alerts of customers whose sums, or plans, have changed. Periods brought in or closed are no news."""
    closed, born = await catalog.closings(), await born_us(connection) or 0
    open_now, before = {Period.of(now_us)}, Period.of(Period.of(now_us).start_us - 1)
    while len(open_now) < _OPEN_MAX and closed.of(before) is None and before.end_us > born:
        open_now.add(before)
        before = Period.of(before.start_us - 1)
    found: list[Cost] = []
    for customer, summed in sums.items():
        sections_of = await catalog.sections_of(customer)
        coupled = await catalog.coupling(customer) == "account"
        # What is due without any event counts as well; of coupled plans no sums say where anything has changed.
        wanted = open_now | {Period.of(place.start_us) for place, _ in summed}
        sections = [section for period in sorted(wanted) for section in sections_of(period)]
        news = [
            section
            for section in sections
            if section.plan.plan.guardrails.max_spend_cap is not None
            and section.customer.attributed
            and closed.of(section.period) is None
            and section.end_us > born
        ]
        if news:
            movements = await _scanned(connection, catalog, customer) if coupled else summed
            with localcontext(EXACT):
                costs = Costs(sections_of, movements)
                found += [costs.at(one, State(one.period, ENTERED)) for one in news]
    await spending.note(connection, found)
    await _insert(connection, [_row(cost, percent, now_us) for cost in found for percent in alerts_reached(cost)])


async def capped(connection: AsyncConnection, catalog: Catalog, period: Period) -> set[str]:
    """Customers whose plans have a cap in a period, among those who are registered or have been summed up."""
    summed_up = await connection.execute(select(rated.c.customer).distinct())
    names = {*await registered(connection), *summed_up.scalars()} - {UNATTRIBUTED}
    found = set()
    for some in chunks(names):
        await catalog.customers(some)
        for name in some:
            sections = (await catalog.sections_of(name))(period)
            if any(section.plan.plan.guardrails.max_spend_cap is not None for section in sections):
                found.add(name)
        await asyncio.sleep(0)  # requests are answered meanwhile
    return found


async def _scanned(connection: AsyncConnection, catalog: Catalog, customer: str) -> Movements:
    """Of a plan in which any event can decide about any other."""
    sections_of = await catalog.sections_of(customer)
    known = (await catalog.customers([customer]))[customer]
    account = Account(known, await account_rows(connection, customer))
    return movements_of(account, sections_of)


def _row(cost: Cost, percent: int, now_us: int) -> dict[str, Any]:
    section, rails = cost.section, cost.section.plan.plan.guardrails
    cap = round_amount(rails.max_spend_cap or EXACT.create_decimal(0), cost.currency)
    body = {
        "type": ALERT_TYPE,
        "timestamp": timestamp(now_us),
        "data": {
            "customer": section.customer.id,
            "period": str(section.period),
            "from": timestamp(section.start_us),
            "plan": section.plan.plan.name,
            "percent": percent,
            "subtotal": money(cost.subtotal),
            "max_spend_cap": money(cap),
            "max_spend_behavior": rails.max_spend_behavior,
            "currency": cost.currency,
        },
    }
    return {
        "customer": section.customer.id,
        "start_us": section.start_us,
        "percent": percent,
        "body": json.dumps(body, separators=(",", ":"), sort_keys=True),
        "created_us": now_us,
        "attempts": 0,
        "next_us": now_us,
    }


async def _insert(connection: AsyncConnection, rows: list[dict[str, Any]]) -> None:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    if rows:
        once = dialect.insert(alerts).on_conflict_do_nothing(index_elements=["customer", "start_us", "percent"])
        await connection.execute(once, rows)


async def alert_secret(database: Database, given: str | None) -> str:
    """The signing secret: the one given, else one made once, kept in the database and the same for all replicas."""
    if given is not None:
        return given
    made = SECRET_PREFIX + base64.b64encode(randomness.token_bytes(32)).decode()
    async with database.writing() as connection:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        once = dialect.insert(secrets).on_conflict_do_nothing(index_elements=["name"])
        await connection.execute(once, [{"name": "alerts", "value": made}])
        found = await connection.execute(select(secrets.c.value).where(secrets.c.name == "alerts"))
        return str(found.scalar_one())


class Deliveries:
    """Sends what is due to `url`; `clock` gives Unix microseconds."""

    def __init__(self, database: Database, url: str, secret: str, clock: Callable[[], int]) -> None:
        self._database = database
        self._url = url
        self._secret = secret
        self._clock = clock
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, follow_redirects=False)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def step(self) -> bool:
        """Try one alert that is due; whether there was one."""
        claimed = await self._claim()
        if claimed is None:
            return False
        error = await self._send(claimed)
        attempts, now = claimed["attempts"] + 1, self._clock()
        values: dict[str, Any] = {"attempts": attempts, "error": error}
        if error is None:
            values |= {"delivered_us": now, "next_us": None}
        elif attempts >= ATTEMPTS_MAX:
            values |= {"next_us": None}
            log.error("alert_given_up", alert=_identifier(claimed), attempts=attempts, error=error)
        else:
            wait = min(_FIRST_RETRY_US * 2 ** min(attempts - 1, 20), _LONGEST_RETRY_US)
            values |= {"next_us": now + wait}
            log.warning("alert_not_delivered", alert=_identifier(claimed), error=error)
        async with self._database.writing() as connection:
            await connection.execute(update(alerts).where(alerts.c.seq == claimed["seq"]).values(values))
        return True

    async def _claim(self) -> Mapping[str, Any] | None:
        """One that is due, with its next attempt put off so that no other replica takes it meanwhile."""
        now = self._clock()
        due = alerts.c.next_us <= now
        async with self._database.reading() as connection:
            if (await connection.execute(select(alerts.c.seq).where(due).limit(1))).first() is None:
                return None
        async with self._database.writing() as connection:
            query = select(alerts).where(due).order_by(alerts.c.next_us).limit(1)
            row = (await connection.execute(query.with_for_update(skip_locked=True))).mappings().first()
            if row is not None:
                mine = update(alerts).where(alerts.c.seq == row["seq"])
                await connection.execute(mine.values(next_us=now + _CLAIM_US))
            return None if row is None else dict(row)

    async def _send(self, row: Mapping[str, Any]) -> str | None:
        """None when it was taken, else why not."""
        body, identifier, when = row["body"].encode(), _identifier(row), self._clock() // 1_000_000
        headers = {
            "content-type": "application/json",
            "webhook-id": identifier,
            "webhook-timestamp": str(when),
            "webhook-signature": signature(self._secret, identifier, when, body),
        }
        try:
            answer = await self._http.post(self._url, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return str(error) or type(error).__name__
        return None if answer.is_success else f"answered {answer.status_code}"


def _identifier(row: Mapping[str, Any]) -> str:
    """The same at every attempt, by which receivers tell repetitions."""
    key = f"{row['customer']}\n{row['start_us']}\n{row['percent']}"
    return "alert_" + hashlib.sha256(key.encode()).hexdigest()[:40]


async def undelivered(connection: AsyncConnection) -> tuple[int, int]:
    """How many alerts wait, and how many were given up."""
    waiting = select(func.count()).where(alerts.c.next_us.is_not(None))
    given_up = select(func.count()).where(alerts.c.next_us.is_(None), alerts.c.delivered_us.is_(None))
    return (await connection.execute(waiting)).scalar_one(), (await connection.execute(given_up)).scalar_one()

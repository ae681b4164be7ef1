"""A ledger to which all that can happen happens at random; whatever holds of it at any time is checked on the way."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import localcontext
from typing import Any

from billing_api import DAY_US, Clock, event, simple_plan
from sqlalchemy import delete

from sidecar.billing import accounts, upkeep
from sidecar.billing.ledger.aggregates import Aggregates
from sidecar.billing.ledger.behind import Behind
from sidecar.billing.ledger.catalog import Catalog, ClosedPeriodError
from sidecar.billing.ledger.deciding import RefusedError, Ruling, UnknownOutcomeError
from sidecar.billing.ledger.entries import account_rows
from sidecar.billing.ledger.tables import movements, rated
from sidecar.billing.rating.account import Account
from sidecar.billing.rating.classes import CLASSES
from sidecar.billing.rating.cost import Charged, Costs
from sidecar.billing.rating.feeding import fed
from sidecar.billing.rating.invoice import written
from sidecar.billing.rating.movements import ENTERED, TAKEN_BACK, Books, State
from sidecar.billing.rating.periods import Period, to_us
from sidecar.billing.rating.price import EXACT
from sidecar.billing.rating.summary import summary
from sidecar.billing.rating.taking_back import TakenBack, taken_back
from sidecar.billing.service import Billing

START = datetime(2026, 10, 1, tzinfo=UTC)
MONTHS = [Period(2026, 10), Period(2026, 11), Period(2026, 12), Period(2027, 1)]
AMOUNTS = ("subtotal", "adjustments", "credits", "total")
CUSTOMERS = ["c", "d", "unattributed"]
WINDOWED = (
    "{{field: outcome, operator: EQUALS, value: RESOLVED}}, "
    "{{field: {field}, operator: UNIQUE_WITHIN_WINDOW, window: {window}}}"
)
TIERED = """
rate_plan:
  name: tiered
  trial_days: 5
  metrics:
    - {id: m, aggregation: COUNT, filter_conditions: [{field: outcome, operator: EQUALS, value: RESOLVED}]}
    - {id: t, aggregation: SUM, event_field: tokens.output}
  charges:
    - {id: pro, metrics: [m], when: [{field: customer.seat_tier, operator: EQUALS, value: PRO}], model: GRADUATED,
       included_free: 1, tiers: [{up_to: 2, rate: 0.5}, {up_to: null, rate: 0.333}]}
    - {id: rest, metrics: [m, t], model: PER_UNIT, rate: 0.005}
    - {id: fee, metrics: [], model: FLAT, rate: 7}
  guardrails: {max_spend_cap: 9, max_spend_behavior: CAP, min_spend: 1}
"""
PLANS = {
    "default": simple_plan("0.99", window="SESSION"),
    "tiered": TIERED,
    "talk": f"""
rate_plan:
  name: talk
  metrics:
    - {{id: m, aggregation: COUNT, filter_conditions: [{WINDOWED.format(field="conversation", window="CONVERSATION")}]}}
    - {{id: n, aggregation: COUNT, filter_conditions: [{WINDOWED.format(field="session_id", window="BILLING_PERIOD")}]}}
  pricing: {{model: PER_UNIT, rate: 2}}
""".replace("{{", "{").replace("}}", "}"),
    "free": """
rate_plan:
  name: free
  metrics:
    - {id: m, aggregation: COUNT, filter_conditions: [{field: outcome, operator: EQUALS, value: RESOLVED}]}
    - {id: t, aggregation: SUM, event_field: tokens.output}
  charges:
    - {id: few, metrics: [m], model: PER_UNIT, rate: 1, included_free: 2}
    - {id: more, metrics: [t, m], model: PER_UNIT, rate: 0.01, included_free: 45}
    - {id: all, metrics: [m], when: [{field: conversation, operator: EQUALS, value: k}], model: PER_UNIT, rate: 1,
       overage_behavior: NO_CHARGE}
""",
    "any": simple_plan(1).replace("COUNT", "UNIQUE, event_field: conversation"),
}


class History:
    """One ledger, and what happens to it. `rng` decides."""

    def __init__(self, billing: Billing, clock: Clock, rng: random.Random, plans: list[str], tokens: list[int]) -> None:
        self.billing, self.clock, self.rng, self.plans, self.tokens = billing, clock, rng, plans, tokens
        self.work = upkeep.Upkeep(billing)
        self.posted: dict[str, dict[str, Any]] = {}
        self.closed: dict[tuple[str, Period], dict[str, Any]] = {}

    async def post(self) -> None:
        rng, events = self.rng, []
        for _ in range(rng.randint(1, 4)):
            session, revision = rng.randint(0, 5), rng.choice([0, 0, 0, 1, 2])
            identifier = f"out_{session}_{revision}" + ("" if revision or rng.random() < 0.9 else "_again")
            days = (self.clock.now_us // 1_000_000 - int(START.timestamp())) // 86_400 + rng.randint(-50, 8)
            at = START + timedelta(days=min(100, max(0, days)), seconds=session)
            data = {
                "session_id": f"s{session}", "conversation": rng.choice([None, "k", "l"]), "revision": revision,
                "reverses": f"out_{session}_{revision - 1}" if revision else None,
                "outcome": rng.choice(["RESOLVED", "RESOLVED", "UNRESOLVED"]), "state": "RESOLVED",
                "held": rng.random() < 0.4, "billable": rng.random() < 0.9, "shadow": rng.random() < 0.1,
                "tokens": {"output": rng.choice(self.tokens)}, "tenant": None,
            }  # fmt: skip
            made = event(0, id=identifier, subject=rng.choice(CUSTOMERS), time=at.isoformat(), data=data)
            events.append(self.posted.setdefault(identifier, made))
        receipt = await self.billing.post(events)
        assert receipt.rejected == []

    async def decide(self) -> None:
        kind = self.rng.choice(["release", "drop", "reverse", "assign"])
        identifier = self.rng.choice([*self.posted, "out_unknown"])
        customer = self.rng.choice(["c", "d"]) if kind == "assign" else None
        ruling = Ruling(identifier, kind, "ann", "because", customer)
        try:
            await self.billing.decide(ruling)
        except (RefusedError, UnknownOutcomeError):
            return

    async def assign(self) -> None:
        rng = self.rng
        facts = {"plan": rng.choice(self.plans), "seat_tier": rng.choice(["PRO", "BASIC"])}
        if rng.random() < 0.5:
            facts["started_at"] = f"2026-1{rng.randint(0, 2)}-0{rng.randint(1, 9)}T00:00:00Z"
        start = self.clock.now_us + rng.randint(-40, 20) * DAY_US if rng.random() < 0.4 else None
        try:
            await self.billing.put_customer(rng.choice(["c", "d"]), facts, start)
        except ClosedPeriodError:
            return

    async def wait(self) -> None:
        self.clock.now_us += self.rng.randint(1, 20) * DAY_US
        period = await self.billing.close_due()
        if period is not None:
            for month in MONTHS:
                if month <= period:
                    for customer in CUSTOMERS:
                        made = await self.billing.invoice(customer, month)
                        assert self.closed.setdefault((customer, month), made) == made

    async def sum_up(self) -> None:
        await self.work.aggregate()

    async def throw_away(self) -> None:
        """The sums of a customer; they are derived, and must come back by themselves."""
        customer = self.rng.choice(CUSTOMERS)
        async with self.billing.database.writing() as connection:
            for table in (movements, rated):
                await connection.execute(delete(table).where(table.c.customer == customer))

    async def step(self) -> None:
        moves = [self.post, self.post, self.post, *[self.decide] * 4, self.assign, self.wait]
        moves += [self.sum_up, self.sum_up, self.throw_away]
        await self.rng.choice(moves)()

    async def check(self) -> None:
        for customer in CUSTOMERS:
            for month in MONTHS:
                made = await self.billing.invoice(customer, month)
                status = made.pop("status")
                by_rows, summed = await self._from_rows(customer, month)
                assert made == by_rows, (customer, month, summed)
                if (customer, month) in self.closed:
                    assert {**made, "status": status} == self.closed[customer, month]
                await self._check_lines(customer, month, made)
        await self._check_books()
        await self._check_charged()

    async def _check_charged(self) -> None:
        """What a month charges over all customers is what it charges each; and where units tell it, what the rows say,
        each of which is asked for whether it had free units.
        """
        for month in MONTHS:
            made = await self.billing.summary(month)
            assert made["charged"] + made["charged_later"] - made["taken_back"] == made["charged_net"]
            assert min(made["charged_later"], made["taken_back"]) >= 0
            charged = {one.customer: one.invoice for one in await accounts.listed(self.billing, month, None, "", 10)}
            assert made["charged_net"] == sum(one["charged"].net for one in charged.values()), month
            for customer, one in charged.items():
                if one["charged"].exact:
                    assert one["charged"] == await self._charged_by_rows(customer, month), (customer, month)

    async def _charged_by_rows(self, customer: str, month: Period) -> Charged:
        async with self.billing.database.reading() as connection:
            catalog = Catalog(connection)
            sections_of = await catalog.sections_of(customer)
            account = Account((await catalog.customers([customer]))[customer], await account_rows(connection, customer))
        books = Books(account, sections_of)
        with localcontext(EXACT):
            was, most, left = (
                sum(list(fed(section, usages, part=False).values()).count("charged")
                    for section, usages in books.counted(state))
                for state in (State(month.before, TAKEN_BACK), State(month, ENTERED), State(month, TAKEN_BACK))
            )  # fmt: skip
        return Charged(most - was, most - left)

    async def check_sums(self) -> None:
        """What is summed up and what is pending make together what the rows say, movement by movement."""
        async with self.billing.database.reading() as connection:
            catalog = Catalog(connection)
            for name, customer in (await catalog.customers(CUSTOMERS)).items():
                summed = await Aggregates(connection, catalog).read(name)
                if summed is not None:
                    account = Account(customer, await account_rows(connection, name))
                    with localcontext(EXACT):
                        by_rows = Books(account, await catalog.sections_of(name)).movements()
                    assert summed == by_rows, name
        for month in MONTHS:
            made = await self.billing.summary(month)
            by_rows = await self._summary_from_rows(month)
            differing = {name: (made[name], by_rows[name]) for name in by_rows if made[name] != by_rows[name]}
            assert not differing, (month, differing)

    async def _summary_from_rows(self, month: Period) -> dict[str, Any]:
        """All accounts rated in one piece, without any sums."""
        async with self.billing.database.reading() as connection:
            catalog, accounts = Catalog(connection), []
            for name, customer in (await catalog.customers(CUSTOMERS)).items():
                rows = await account_rows(connection, name)
                accounts.append((Account(customer, rows), await catalog.sections_of(name)))
        return summary(accounts, month)

    async def _from_rows(self, customer: str, month: Period) -> tuple[dict[str, Any], bool]:
        """Rated in one piece, without any sums."""
        async with self.billing.database.reading() as connection:
            catalog = Catalog(connection)
            sections_of = await catalog.sections_of(customer)
            account = Account((await catalog.customers([customer]))[customer], await account_rows(connection, customer))
            summed = await Aggregates(connection, catalog).read(customer)
        with localcontext(EXACT):
            costs = Costs(sections_of, Books(account, sections_of).movements())
        return written(
            customer, costs, month, TakenBack.of(taken_back(account, sections_of, month))
        ), summed is not None

    async def _check_lines(self, customer: str, month: Period, made: dict[str, Any]) -> None:
        for line in made["lines"]:
            if line["sessions"] is None:
                continue
            uses, after, pages, start = [], 0, 0, to_us(datetime.fromisoformat(line["from"]))
            while pages == 0 or after is not None:
                page = await self.billing.behind_line(Behind(customer, month, line["charge"], start, after or 0, 3))
                uses, after, pages = uses + page.uses, page.next, pages + 1
            assert len({use["outcome"] for use in uses}) == line["outcomes"]

    async def _check_books(self) -> None:
        """Every event is in one class of one period's summary."""
        periods = [Period(2026, 9), *MONTHS, Period(2027, 2), Period(2027, 3), Period(2027, 4), Period(2027, 5)]
        events = shadow = 0
        for period in periods:
            found = await self.billing.summary(period)
            assert sum(found[name] for name in CLASSES) == found["events"]
            events += found["events"]
            shadow += sum(found["shadow"][name] for name in CLASSES)
        live = [one for one in self.posted.values() if not one["data"]["shadow"]]
        assert (events, shadow) == (len(live), len(self.posted) - len(live))

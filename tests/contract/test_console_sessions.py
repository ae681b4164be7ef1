"""The list of sessions beside a plain reading of the ledger: whatever is asked, page by page, nothing more or less."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from billing_api import DAY_US, NOW_US, billing_on, event
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL

from sidecar.billing import desk
from sidecar.billing.events import read_event
from sidecar.billing.ledger import sessions
from sidecar.billing.ledger.append import insert, values
from sidecar.billing.ledger.database import MIGRATIONS, Database
from sidecar.billing.ledger.deciding import Ruling
from sidecar.billing.ledger.sessions import Asked, Place
from sidecar.billing.ledger.tables import outcomes
from sidecar.billing.rating.invoice import timestamp
from sidecar.billing.service import Billing

STATES = {"RESOLVED": "RESOLVED", "NOT_BILLABLE": "ESCALATED_TO_HUMAN", "INCONCLUSIVE": "INCONCLUSIVE"}
REASONS = ["resolve tool", "Ticket „closed“", 'said "done"', "100% sure_", "", None]


def made(rng: random.Random, number: int) -> list[dict[str, Any]]:
    """A session with some revisions, in any order of arrival."""
    state = rng.choice(list(STATES))
    named = rng.choice(["RESOLVED", "UPSELL"]) if state == "RESOLVED" else STATES[state]
    data = {
        "session_id": f"ses_{number}", "conversation": rng.choice([None, "c-1", "c-2"]), "state": state,
        "outcome": named, "reason": rng.choice(REASONS), "held": rng.random() < 0.3,
        "attributes": rng.choice([{}, {"ticket": "T-1"}, {"tickets": ["T-1", 77], "language": "en"}]),
    }  # fmt: skip
    subject, at_us = rng.choice(["a", "b", "unattributed"]), NOW_US - rng.randrange(5) * DAY_US
    found = [event(number, subject=subject, time=timestamp(at_us), data=data)]
    if rng.random() < 0.3:
        later = {
            "state": "REVERSED",
            "outcome": "UNRESOLVED",
            "revision": 1,
            "reverses": f"out_{number}",
            "held": False,
        }
        again = {**data, **later, "reason": "came back"}
        time = timestamp(at_us + rng.randrange(2) * DAY_US)
        found.append(event(number, id=f"out_{number}_1", subject=subject, time=time, data=again))
    rng.shuffle(found)
    return found


async def fill(billing: Billing, rng: random.Random) -> None:
    for number in range(60):
        for one in made(rng, number):
            assert (await billing.post([one])).accepted == 1
    for number in range(60):
        if rng.random() < 0.3:
            kind, customer = rng.choice([("release", None), ("drop", None), ("reverse", None), ("assign", "a")])
            try:
                await billing.decide(Ruling(f"out_{number}", kind, "ann", "because", customer))
            except ValueError:
                continue  # not possible where it stands


async def plainly(billing: Billing) -> list[dict[str, Any]]:
    """Every session by its last revision, newest first, read without any index in mind."""
    async with billing.database.reading() as connection:
        rows = [dict(row) for row in (await connection.execute(text("SELECT * FROM outcomes"))).mappings()]
        taken = [
            dict(row) for row in (await connection.execute(text("SELECT * FROM decisions ORDER BY seq"))).mappings()
        ]
    last = {row["session_id"]: row for row in sorted(rows, key=lambda row: row["revision"])}
    for row in last.values():
        mine = [one for one in taken if one["session_id"] == row["session_id"]]
        assigned = [one["assigned"] for one in mine if one["kind"] == "assign"]
        if row["customer"] == "unattributed" and assigned:
            row["customer"] = assigned[0]
        row["waits"] = row["held"] and not [
            one for one in mine if one["outcome_id"] == row["id"] and one["kind"] != "assign"
        ]
        revisions = {one["id"] for one in rows if one["session_id"] == row["session_id"]}
        row["names"] = {row["session_id"], row["conversation"], *revisions}
        row["names"] |= {name for name in ("T-1", "77") if f'"{name}"' in row["body"] or f"{name}]" in row["body"]}
    return sorted(last.values(), key=lambda row: (row["at_us"], row["seq"]), reverse=True)


def fits(row: dict[str, Any], asked: Asked) -> bool:
    plain = {"customer": asked.customer, "state": asked.state, "outcome": asked.outcome}
    return (
        all(value is None or row[name] == value for name, value in plain.items())
        and (asked.text is None or asked.text in row["names"])
        and (not asked.held or bool(row["waits"]))
        and (asked.from_us is None or row["at_us"] >= asked.from_us)
        and (asked.until_us is None or row["at_us"] < asked.until_us)
    )


def questions(rng: random.Random) -> Iterator[Asked]:
    yield Asked()
    for state in ("RESOLVED", "REVERSED", "INCONCLUSIVE"):
        yield Asked(state=state)
    yield from (Asked(held=True), Asked(customer="a"), Asked(customer="unattributed"), Asked(outcome="UPSELL"))
    yield from (Asked(text=one) for one in ("c-1", "T-1", "77", "ses_3", "out_3", "out_3_1", "none", "en"))
    for _ in range(15):
        days = sorted(NOW_US - rng.randrange(6) * DAY_US for _ in range(2))
        yield Asked(
            text=rng.choice([None, None, "c-2", "T-1"]),
            customer=rng.choice([None, "a", "b", "unattributed"]),
            state=rng.choice([None, "RESOLVED", "NOT_BILLABLE", "REVERSED"]),
            outcome=rng.choice([None, None, "UPSELL", "RESOLVED"]),
            held=rng.random() < 0.2,
            from_us=rng.choice([None, days[0]]),
            until_us=rng.choice([None, days[1] + DAY_US]),
        )


async def everything(billing: Billing, asked: Asked, limit: int) -> list[str]:
    """All pages."""
    found: list[str] = []
    after: Place | None = None
    while True:
        page = await desk.find(billing, asked, after, limit)
        assert len(page.sessions) <= limit
        assert len(page.sessions) == limit or page.cut or page.following is None
        found += [row["id"] for row in page.sessions]
        if page.following is None:
            return found
        after = page.following


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_asked_every_page_together_has_what_the_ledger_has(
    ledger_url: URL, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(sessions, "_FIRST", 3)
    monkeypatch.setattr(sessions, "_AT_ONCE", 4)
    if seed:  # pages that end for the bound
        monkeypatch.setattr(sessions, "LOOKED_MAX", 8)
    async with billing_on(ledger_url) as billing:
        await fill(billing, rng)
        rows = await plainly(billing)
        for asked in questions(rng):
            wanted = [row["id"] for row in rows if fits(row, asked)]
            assert await everything(billing, asked, 3 + seed) == wanted, asked


async def test_a_part_of_a_reason_is_found_as_it_was_said(ledger_url: URL) -> None:
    async with billing_on(ledger_url) as billing:
        await billing.post([event(number, data={"reason": reason}) for number, reason in enumerate(REASONS)])
        for part, wanted in {
            "TOOL": ["out_0"], "„CLOSED": ["out_1"], '"done"': ["out_2"], "%": ["out_3"], "_": ["out_3"], "x": [],
            "r_d": [], "resolve_tool": [],
        }.items():  # fmt: skip
            assert await everything(billing, Asked(reason=part), 2) == wanted, part


async def test_what_was_there_before_the_migration_is_found_after_it(ledger_url: URL) -> None:
    database = Database(ledger_url)
    earlier = [
        event(1, data={"attributes": {"ticket": "T-1"}, "held": True}),
        event(2, subject="unattributed"),
        event(3),
    ]
    async with database.writing() as connection:
        await connection.run_sync(_upgrade_to, "0004")
        rows = [values(read_event(one), NOW_US) for one in earlier]
        await insert(connection, outcomes, rows)
    await database.close()
    async with billing_on(ledger_url) as billing:
        assert await everything(billing, Asked(text="T-1"), 5) == ["out_1"]
        waits = await desk.waits(billing, None, None, 5)
        assert [(row["id"], row["stands"]) for row in waits.outcomes] == [("out_1", "held"), ("out_2", "unattributed")]


def _upgrade_to(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)

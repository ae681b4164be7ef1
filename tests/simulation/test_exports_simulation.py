"""Whatever goes wrong, a target's total ends as what the ledger counts, or differs by exactly what is parked and shown.

Seeded histories: events, holds, decisions, while two replicas send several requests at once and the target answers,
fails, loses its answer, or is away for longer than it remembers ids. Which answer comes first is chance.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from billing_api import DAY_US, event, post
from export_fake import FAULTS
from exporting import METER, Setting, exporting, feed_until_idle, units
from ledgers import postgres_database, postgres_server
from sqlalchemy import select
from sqlalchemy.engine import URL

from sidecar.billing.exports import sums
from sidecar.billing.exports.tables import export_events
from sidecar.billing.exports.targets import TARGETS
from sidecar.billing.ledger.database import sqlite_url
from sidecar.billing.rating.invoice import timestamp


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@asynccontextmanager
async def ledger(backend: str, folder: Path, request: pytest.FixtureRequest) -> AsyncIterator[URL]:
    if backend == "sqlite":
        yield sqlite_url(folder / "billing.sqlite3")
        return
    async with postgres_database(request.getfixturevalue("server")) as url:
        yield url


async def sums_are_counts(it: Setting) -> None:
    """What the sums say lies in each state is what an honest count finds there."""
    async with it.api.billing.database.reading() as connection:
        kept = {place: (one.entries, one.units) for place, one in (await sums.read(connection)).items() if one.entries}
        counted: dict[sums.Place, tuple[int, Decimal]] = {}
        for row in (await connection.execute(select(export_events))).mappings():
            entries, units_ = counted.get(sums.place_of(row), (0, Decimal(0)))
            counted[sums.place_of(row)] = entries + 1, units_ + Decimal(row["quantity"])
    assert kept == counted


def small(kind: str) -> str:
    """Batches of a few, so that several are due at once."""
    return "  batch_max: 3\n" if TARGETS[kind].traits.batch_max > 1 else ""


class History:
    """What happens, and how many resolutions stand after it."""

    def __init__(self, it: Setting, chance: random.Random) -> None:
        self.it = it
        self.chance = chance
        self.standing: set[int] = set()
        self.held: set[int] = set()
        self.number = 0

    async def step(self) -> None:
        await getattr(self, self.chance.choice(["come", "come", "come", "reverse", "hold", "release", "shadow"]))()

    def new(self) -> int:
        self.number += 1
        return self.number

    def now(self) -> str:
        return timestamp(self.it.clock.now_us)

    async def come(self) -> None:
        numbers = [self.new() for _ in range(self.chance.randint(1, 6))]
        names = [f"customer-{self.chance.randint(1, 3)}" for _ in numbers]
        events = [event(n, subject=name, time=self.now()) for n, name in zip(numbers, names, strict=True)]
        await post(self.it.api, *events, kind="application/cloudevents-batch+json")
        self.standing |= set(numbers)

    async def hold(self) -> None:
        number = self.new()
        await post(self.it.api, event(number, time=self.now(), data={"held": True}))
        self.held.add(number)

    async def shadow(self) -> None:
        await post(self.it.api, event(self.new(), time=self.now(), data={"shadow": True}))

    async def release(self) -> None:
        if self.held:
            number = self.held.pop()
            answer = await self.it.api.post(f"/v1/outcomes/out_{number}/release", json={"actor": "a", "reason": "r"})
            assert answer.status_code == 201
            self.standing.add(number)

    async def reverse(self) -> None:
        if self.standing:
            number = self.chance.choice(sorted(self.standing))
            answer = await self.it.api.post(f"/v1/outcomes/out_{number}/reverse", json={"actor": "a", "reason": "r"})
            assert answer.status_code == 201
            self.standing.remove(number)


async def run(it: Setting, kind: str, seed: int, *, away: bool) -> History:
    chance = random.Random(seed)
    fake = it.fakes[kind]
    history = History(it, chance)
    fake.fault = lambda: chance.choice(FAULTS) if chance.random() < 0.45 else None
    for round_number in range(14):
        await history.step()
        await it.note()
        await feed_until_idle([sender for sender in it.senders if chance.random() < 0.6])
        it.clock.now_us += chance.randint(1, 600) * 1_000_000
        await sums_are_counts(it)
        if away and round_number in {5, 10}:
            it.clock.now_us += chance.choice([DAY_US, 4 * DAY_US])
    fake.fault = lambda: None
    for _ in range(8):
        await it.run(400)
    assert getattr(fake, "met", 0) == 0, "two of a customer's entries were on their way at once"
    return history


@pytest.mark.parametrize(
    ("kind", "backend"),
    [(kind, "sqlite") for kind in sorted(TARGETS)] + [(kind, "postgresql") for kind in ("lago", "stripe_v1")],
)
async def test_the_totals_agree_after_every_fault(
    kind: str, backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    async with ledger(backend, tmp_path, request) as url, exporting(url, [kind], replicas=2, more=small(kind)) as it:
        history = await run(it, kind, seed=7, away=False)
        shown = await it.meter(kind)
        counts = units(shown)
        assert counts["ledger"] == len(history.standing)
        assert counts == {**counts, "waiting": 0, "parked": 0, "difference": 0}
        assert it.fakes[kind].total(METER) == len(history.standing)
        assert len(it.fakes[kind].requests) > 10


@pytest.mark.parametrize("kind", sorted(TARGETS))
async def test_what_differs_is_what_is_parked(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    async with ledger("sqlite", tmp_path, request) as url, exporting(url, [kind], replicas=2, more=small(kind)) as it:
        history = await run(it, kind, seed=2, away=True)
        counts = units(await it.meter(kind))
        assert counts["ledger"] == len(history.standing)
        assert counts["difference"] == 0, "everything that is counted was written"
        open_entries = [entry for entry in await it.entries(kind) if entry["state"] != "acknowledged"]
        assert counts["waiting"] + counts["parked"] == sum(Decimal(entry["quantity"]) for entry in open_entries)
        # An operator looks at the target for each that is parked, and says what is there.
        fake = it.fakes[kind]
        for _ in range(8):
            for entry in await it.entries(kind, "parked"):
                there = _has(fake, kind, entry)
                ambiguous = entry["cause"] == "ambiguous"
                await it.redeliver(
                    kind, entries=[entry["id"]], action="acknowledge" if ambiguous and there else "send"
                )  # fmt: skip
            await it.run(400)
        counts = units(await it.meter(kind))
        assert counts == {**counts, "waiting": 0, "parked": 0, "difference": 0}
        assert fake.total(METER) == len(history.standing)
        await sums_are_counts(it)


def _has(fake: object, kind: str, entry: dict) -> bool:
    keys = [key for key in fake.seen if entry["id"] in key]
    if entry["act"] == "cancel":
        return entry["id"] in fake.cancelled_by
    return bool(keys)

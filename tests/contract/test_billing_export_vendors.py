"""What single vendors do that others do not."""

from __future__ import annotations

from pathlib import Path

import pytest
from billing_api import BATCH, event, post
from exporting import METER, exporting, units
from sqlalchemy.engine import URL

from sidecar.billing.ledger.database import sqlite_url


@pytest.fixture
def file_url(tmp_path: Path) -> URL:
    return sqlite_url(tmp_path / "billing.sqlite3")


async def test_polar_with_a_clock_behind_ours_is_sent_the_same_later(file_url: URL) -> None:
    async with exporting(file_url, ["polar"]) as it:
        fake = it.fakes["polar"]
        fake.behind_us = 3_000_000
        await post(it.api, event(1), event(2, time="2026-11-22T09:00:00Z"))
        await it.run()
        assert fake.total(METER) == 1, "the other one of the batch is not held up"
        shown = await it.meter("polar")
        assert (shown["waiting"], shown["parked"]) == (1, 0)
        await it.run(10)
        assert fake.total(METER) == 2
        assert units(await it.meter("polar"))["acknowledged"] == 2


async def test_flexprice_may_keep_what_stands_before_an_event_that_it_refuses(file_url: URL) -> None:
    async with exporting(file_url, ["flexprice"]) as it:
        fake = it.fakes["flexprice"]
        fake.broken = {"nobody"}
        await post(it.api, *(event(number, subject="nobody" if number == 3 else "customer-17") for number in range(6)))
        await it.run()
        kept = [path for path, _, _ in fake.requests]
        assert kept == ["/v1/events/bulk", *["/v1/events"] * 6], "one by one"
        assert all(len(bodies) == 1 for bodies in fake.bodies.values()), "the same bytes, which it tells as copies"
        assert fake.amounts == {("customer-17", METER): 5}
        shown = await it.meter("flexprice")
        assert (shown["acknowledged"], shown["causes"]) == (5, {"refused": 1})


@pytest.mark.parametrize(("kind", "most"), [("orb", 500), ("lago", 100), ("metronome", 100), ("polar", 100)])
async def test_a_backlog_goes_in_batches_of_as_many_as_the_vendor_takes(file_url: URL, kind: str, most: int) -> None:
    async with exporting(file_url, [kind]) as it:
        fake = it.fakes[kind]
        for start in range(0, most + 1, 100):
            await post(it.api, *(event(number) for number in range(start, min(start + 100, most + 1))), kind=BATCH)
        await it.run()
        assert len(fake.requests) == 2
        assert fake.total(METER) == most + 1

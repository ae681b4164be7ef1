"""The histogram of an event loop's lag on the status page."""

import asyncio

import pytest

from sidecar.wire.lag import BOUNDS_SECONDS, note_lag, read_lag, watch_loop
from sidecar.wire.status import STATUS_BYTES, Slot, StatusPage


@pytest.mark.parametrize("first", [Slot.LOOP_LAG_2MS, Slot.OBSERVER_LAG_2MS])
def test_a_measurement_counts_within_every_bound_above_it(first):
    status = StatusPage(bytearray(STATUS_BYTES))
    for lag in (-0.001, 0.002, 0.0021, 0.3, 7.0):
        note_lag(status, first, lag)
    buckets, total = read_lag(status, first)
    found = dict(buckets)
    assert [found[bound] for bound in ("0.002", "0.005", "0.25", "1.0", "+Inf")] == [2, 3, 3, 4, 5]
    assert [bound for bound, _ in buckets] == [*map(str, BOUNDS_SECONDS), "+Inf"]
    assert total == pytest.approx(7.3041)


def test_the_slots_of_a_histogram_follow_one_another_and_meet_no_others():
    for first, last in ((Slot.LOOP_LAG_2MS, Slot.LOOP_LAG_SUM_US), (Slot.OBSERVER_LAG_2MS, Slot.OBSERVER_LAG_SUM_US)):
        assert last == first + len(BOUNDS_SECONDS) + 1
        assert all(Slot(number) for number in range(first, last + 1))


async def test_a_loop_is_watched_until_cancelled():
    status = StatusPage(bytearray(STATUS_BYTES))
    watching = asyncio.create_task(watch_loop(status, Slot.LOOP_LAG_2MS))

    def seen():
        return dict(read_lag(status, Slot.LOOP_LAG_2MS)[0])["+Inf"]

    async with asyncio.timeout(30):
        while not seen():
            await asyncio.sleep(0.01)
    watching.cancel()
    assert sum(status.get(Slot(n)) for n in range(Slot.LOOP_LAG_2MS, Slot.LOOP_LAG_LONGER + 1)) == seen()

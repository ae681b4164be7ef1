from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.steadyclock import SLACK_MS, SteadyClock

T0, HOUR = 1_795_000_000_000, 3_600_000


def test_a_clock_that_is_ahead_for_a_moment_is_not_believed_and_one_that_stays_there_is():
    clock = SteadyClock()
    assert clock.believe(T0, 0.0) == T0
    assert clock.believe(T0 + 1000 + 2 * HOUR, 1.0) == T0 + 1000
    assert clock.believe(T0 + 2000, 2.0) == T0 + 2000
    for second in range(3, 63):
        assert clock.believe(T0 + second * 1000 + 2 * HOUR, float(second)) == T0 + second * 1000
    assert clock.believe(T0 + 63_000 + 2 * HOUR, 63.0) == T0 + 63_000 + 2 * HOUR
    assert clock.believe(T0 + 64_000 + 2 * HOUR, 64.0) == T0 + 64_000 + 2 * HOUR


def test_a_step_back_is_followed_at_once():
    clock = SteadyClock()
    clock.believe(T0, 0.0)
    assert clock.believe(T0 - HOUR, 1.0) == T0 - HOUR
    assert clock.believe(T0 - HOUR + 1000, 2.0) == T0 - HOUR + 1000


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(-10 * HOUR, 10 * HOUR)), max_size=40))
def test_it_is_never_ahead_of_the_wall_clock_nor_faster_than_the_monotonic_one_within_a_minute(steps):
    clock, monotonic_ms, before = SteadyClock(), 0, None
    started_ms = 0
    for step_ms, offset_ms in steps:
        monotonic_ms += step_ms
        wall_ms = T0 + monotonic_ms + offset_ms
        believed = clock.believe(wall_ms, monotonic_ms / 1000)
        assert believed <= wall_ms
        if before is not None and monotonic_ms - started_ms < 60_000:
            assert believed <= before + step_ms + SLACK_MS + 1
        before = believed

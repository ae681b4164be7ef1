"""Timeouts as the sweep sees them, with the time as a parameter; limits of connections against open files."""

from __future__ import annotations

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.proxy.limits import (
    Awaits,
    Note,
    Timeouts,
    connections_allowed,
    crowd,
    end_overdue,
    files_wanted,
    raise_file_limit,
    sweep,
)
from sidecar.wire.status import STATUS_BYTES, Slot, StatusPage

TIMEOUTS = Timeouts(header=10.0, idle=100.0, close=2.0, body=20.0, answer=4.0)


class Connection:
    """What a sweep may see, and what it did."""

    def __init__(self, state: Awaits) -> None:
        self.state = state
        self.waiting = None
        self.left = 1000
        self.asked = 0
        self.done: list[tuple[Awaits, float]] = []
        self.looks = 0

    def awaits(self) -> Awaits:
        return self.state

    def unsent(self) -> int:
        assert self.state is Awaits.TAKING
        self.asked += 1
        return self.left

    def look(self) -> None:
        self.looks += 1

    def expire(self, awaits: Awaits, seconds: float) -> None:
        self.done.append((awaits, seconds))


@pytest.fixture
def status():
    return StatusPage(bytearray(STATUS_BYTES))


def look(connection, status, *times):
    for now in times:
        end_overdue(connection, now, TIMEOUTS, status)
    return connection.done


@pytest.mark.parametrize(
    ("state", "seconds", "slot"),
    [
        (Awaits.FIRST_BYTE, 10.0, Slot.HEADER_TIMEOUTS),
        (Awaits.HEAD, 10.0, Slot.HEADER_TIMEOUTS),
        (Awaits.REQUEST, 100.0, Slot.IDLE_TIMEOUTS),
        (Awaits.TAKING, 100.0, None),
        (Awaits.CLOSE, 2.0, None),
        (Awaits.BODY, 20.0, None),
        (Awaits.ANSWER, 4.0, None),
    ],
)
def test_each_state_has_its_time_and_its_end(status, state, seconds, slot):
    connection = Connection(state)
    assert look(connection, status, 5.0, 6.0, 5.0 + seconds) == []
    assert look(connection, status, 5.1 + seconds) == [(state, seconds)]
    counted = {name: status.get(name) for name in Slot if status.get(name)}
    assert counted == ({slot: 1} if slot else {})


def test_what_is_under_way_has_no_time(status):
    connection = Connection(Awaits.NOTHING)
    assert look(connection, status, 0.0, 1e9) == []


def test_a_request_begins_the_time_anew(status):
    connection = Connection(Awaits.REQUEST)
    look(connection, status, 0.0, 90.0)
    connection.waiting = None  # as the connection does when a head is whole
    assert look(connection, status, 150.0, 249.0) == []
    assert look(connection, status, 251.0) == [(Awaits.REQUEST, 100.0)]


def test_a_head_after_a_long_rest_has_its_own_time(status):
    connection = Connection(Awaits.REQUEST)
    look(connection, status, 0.0, 90.0)
    connection.state = Awaits.HEAD
    assert look(connection, status, 95.0, 104.0) == []
    assert look(connection, status, 106.0) == [(Awaits.HEAD, 10.0)]


def test_the_first_byte_does_not_renew_the_time(status):
    connection = Connection(Awaits.FIRST_BYTE)
    look(connection, status, 0.0, 9.0)
    connection.state = Awaits.HEAD
    assert look(connection, status, 9.5, 10.5) == [(Awaits.HEAD, 10.0)]


def test_who_takes_a_little_has_time_to_take_the_rest(status):
    connection = Connection(Awaits.TAKING)
    for now in range(0, 10_000, 99):
        assert look(connection, status, float(now)) == []
        connection.left -= 1
    connection.left += 1
    assert look(connection, status, now + 100.0) == []
    assert look(connection, status, now + 101.0) == [(Awaits.TAKING, 100.0)]


def test_who_has_taken_everything_has_a_time_of_its_own_to_close(status):
    connection = Connection(Awaits.TAKING)
    look(connection, status, 0.0, 90.0)
    connection.left = 0
    assert look(connection, status, 91.0, 93.0) == []
    assert look(connection, status, 93.1) == [(Awaits.CLOSE, 2.0)]
    assert connection.asked == 5  # which is a system call: once each time


def test_to_close_is_a_time_of_its_own(status):
    """However long the first request was waited for, or the answer was read."""
    for before in (Awaits.FIRST_BYTE, Awaits.TAKING):
        connection = Connection(before)
        look(connection, status, 0.0, 9.0)
        connection.state = Awaits.CLOSE
        assert look(connection, status, 9.5, 11.5) == []
        assert look(connection, status, 11.6) == [(Awaits.CLOSE, 2.0)]


async def test_a_sweep_looks_at_every_connection(status):
    connections = [Connection(Awaits.FIRST_BYTE) for _ in range(1000)]
    for connection in connections:
        connection.waiting = Note(Awaits.FIRST_BYTE, -1e9)
    await sweep(connections, TIMEOUTS, status)
    assert all((connection.done, connection.looks) == ([(Awaits.FIRST_BYTE, 10.0)], 1) for connection in connections)


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(0, 20), st.integers(64, 10**6))
def test_as_many_connections_as_there_are_files_for(most, upstream, origins, files):
    allowed = connections_allowed(most, upstream, origins, files)
    assert 1 <= allowed <= most
    assert allowed == 1 or files_wanted(allowed, upstream, origins) <= files
    assert allowed == most or files_wanted(allowed + 1, upstream, origins) > files


def test_the_crowd_is_a_little_more():
    assert (crowd(1), crowd(8000)) == (17, 9000)


def test_the_file_limit_is_raised_to_the_hard_one():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
    try:
        limit = raise_file_limit()
        assert limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

from __future__ import annotations

import pytest

from sidecar.wire.status import PROXY_GAUGES, STATUS_BYTES, Slot, StatusPage


@pytest.fixture
def memory():
    return bytearray(2 * STATUS_BYTES)


def test_slots_count_set_and_wrap(memory):
    page = StatusPage(memory, STATUS_BYTES)
    page.add(Slot.REQUESTS)
    page.add(Slot.REQUESTS, 41)
    assert page.get(Slot.REQUESTS) == 42
    page.add(Slot.CONNECTIONS_OPEN)
    page.add(Slot.CONNECTIONS_OPEN, -1)
    assert page.get(Slot.CONNECTIONS_OPEN) == 0
    page.set(Slot.PROXY_PID, 2**64 - 1)
    page.add(Slot.PROXY_PID)
    assert page.get(Slot.PROXY_PID) == 0


def test_exchanges_are_counted_as_by_add(memory):
    page = StatusPage(memory)
    for _ in range(3):
        page.exchange_begun()
    page.exchange_over(7, 2**64 - 1)
    page.exchange_over(5, 2)
    counted = {slot: page.get(slot) for slot in Slot if page.get(slot)}
    assert counted == {Slot.REQUESTS: 3, Slot.EXCHANGES_OPEN: 1, Slot.BYTES_UP: 12, Slot.BYTES_DOWN: 1}


def test_two_pages_over_one_memory_see_each_other_and_nothing_else(memory):
    StatusPage(memory, STATUS_BYTES).add(Slot.BYTES_UP, 7)
    assert StatusPage(memory, STATUS_BYTES).get(Slot.BYTES_UP) == 7
    assert StatusPage(memory).get(Slot.BYTES_UP) == 0


def test_a_slot_takes_unsigned_64_bits_only(memory):
    with pytest.raises(ValueError):
        StatusPage(memory).set(Slot.REQUESTS, 2**64)


def test_every_slot_fits_on_the_page_and_has_one_name():
    assert all(0 <= slot < STATUS_BYTES // 8 for slot in Slot)
    assert len(Slot.__members__) == len(Slot), "two names for one slot"
    assert all(slot < Slot.OBSERVER_PID for slot in PROXY_GAUGES), "gauges that the proxy resets are the proxy's"


def test_close_lets_the_memory_go(memory):
    page = StatusPage(memory)
    page.close()
    memory.extend(b"x")  # a BufferError while a view is left

"""A ring without room: what is dropped first, what is owed, and what a reader is told of it."""

from __future__ import annotations

import pytest
from queues import CAPACITY, HEAD_BYTES, shown

from sidecar.wire import ring as ring_module
from sidecar.wire.records import LOST_BEFORE, START_RESERVES, EndFlag, Kind, unpack_gap
from sidecar.wire.ring import RingWriter
from sidecar.wire.ringfile import S_LOST_RECORDS
from sidecar.wire.status import Slot


def fill(queue):
    """Bodies until the writer takes not even the smallest; returns the copy of the first of the two exchanges."""
    copies = []
    for piece in (b"x" * 4000, b"x"):
        copies.append(queue.writer.copy(0))
        copies[-1].request(b"filler", 6)
        dropped = queue.counts()[0]
        while queue.counts()[0] == dropped:
            copies[-1].response(piece)
    return copies[0]


def test_bodies_are_dropped_first_and_heads_and_ends_still_fit(make):
    queue = make()
    filler = fill(queue)
    other = queue.writer.copy(0)
    other.request(HEAD_BYTES + b"b" * 3000, len(HEAD_BYTES))
    other.response(b"HTTP/1.1 200 OK\r\n\r\n", 19)
    other.response(b"body")
    other.end()
    filler.end()
    records = queue.drain()
    other_number = next(record.exchange for record in records if record.payload.startswith(b"POST"))
    mine = [record for record in records if record.exchange == other_number]
    assert shown(mine) == [("REQUEST", HEAD_BYTES), ("RESPONSE", b"HTTP/1.1 200 OK\r\n\r\n"), ("END", b"")]
    assert [record.flags for record in records if record.kind == Kind.END] == [EndFlag.DROPPED, EndFlag.DROPPED]
    assert queue.counts()[2] == 0


def test_once_a_chunk_is_dropped_the_rest_of_its_direction_is(make):
    queue = make()
    filler = fill(queue)
    kept = b"".join(record.payload for record in queue.drain() if record.kind == Kind.RESPONSE)
    records, size, *_ = queue.counts()
    filler.response(b"would fit now")
    filler.request(b"the other direction goes on")
    filler.end()
    assert queue.counts()[:2] == (records + 1, size + 13)
    after = queue.drain()
    assert kept.strip(b"x") == b""
    assert [record.payload for record in after if record.kind == Kind.RESPONSE] == []
    assert [record.payload for record in after if record.kind == Kind.REQUEST] == [b"the other direction goes on"]
    assert after[-1].flags == EndFlag.DROPPED


def test_a_gap_tells_what_was_lost_once_there_is_room_again(make):
    queue = make()
    filler = fill(queue)
    filler.response(b"abc")
    dropped, size, *_ = queue.counts()
    queue.writer.settle()
    assert Kind.GAP not in {record.kind for record in queue.drain()}
    queue.writer.settle()
    (gap,) = queue.drain()
    assert (gap.kind, unpack_gap(gap.payload)) == (Kind.GAP, (dropped, size))
    queue.writer.settle()
    assert queue.drain() == []


def full_to_the_brim(queue):
    """Heads until not even an END fits; returns the copies that were begun, and the one that was dropped."""
    fill(queue)
    begun = []
    while not queue.counts()[2]:
        begun.append(queue.writer.copy(0))
        begun[-1].request(b"h", 1)
    lost = begun.pop()
    if queue.writer._room() >= 40:
        begun.pop().end()
    assert queue.writer._room() < 40
    return begun, lost


def test_an_exchange_whose_first_record_is_dropped_is_dropped_whole(make):
    queue = make()
    _, lost = full_to_the_brim(queue)
    queue.drain()
    before, *_ = queue.counts()
    lost.request(b"more")
    lost.response(b"answer", 6)
    lost.end()
    after = queue.drain()
    assert {record.kind for record in after} == set()
    assert queue.counts()[0] == before + 2
    assert queue.counts()[2] == 1


def test_ends_without_room_are_owed_and_written_before_anything_else(make):
    queue = make()
    begun, _ = full_to_the_brim(queue)
    for copy in begun:
        copy.end(EndFlag.ABORTED_BY_CLIENT)
    queue.writer.settle()
    owed = queue.writer.status.get(Slot.QUEUE_ENDS_OWED)
    assert owed > 0
    assert owed == len(begun)
    queue.drain()
    late = queue.writer.copy(0)
    late.request(b"late", 4)
    records = queue.drain()
    assert [record.kind for record in records] == [Kind.END] * owed + [Kind.GAP, Kind.REQUEST]
    assert {record.flags for record in records[:owed]} == {EndFlag.ABORTED_BY_CLIENT}
    assert queue.writer.status.get(Slot.QUEUE_ENDS_OWED) == 0


def test_a_writer_that_starts_on_a_full_queue_owes_its_start(make):
    queue = make()
    full_to_the_brim(queue)
    queue.writer._file.close()
    queue.writer._lock.close()
    queue.writer = RingWriter(queue.path, CAPACITY, body_bytes_max=100)
    assert not queue.writer._started
    copy = queue.writer.copy(0)
    copy.request(b"too early", 9)
    copy.end()
    queue.drain()
    queue.writer.copy(0).request(b"in time", 7)
    records = queue.drain()
    assert [record.kind for record in records] == [Kind.START, Kind.GAP, Kind.REQUEST]
    assert records[0].flags == LOST_BEFORE
    assert records[1].sequence == records[0].sequence + START_RESERVES + 1


def test_no_more_exchanges_are_open_at_once_than_a_start_can_end(make, monkeypatch):
    monkeypatch.setattr(ring_module, "EXCHANGES_OPEN_MAX", 2)
    queue = make()
    first, second, third = (queue.writer.copy(0) for _ in range(3))
    for copy in (first, second, third):
        copy.request(b"a", 1)
    assert queue.counts() == (1, 1, 1, 0)
    first.end()
    fourth = queue.writer.copy(0)
    fourth.request(b"d", 1)
    kinds = [record.kind for record in queue.drain()]
    assert kinds == [Kind.REQUEST, Kind.REQUEST, Kind.GAP, Kind.END, Kind.REQUEST]
    assert queue.counts()[2] == 1


def test_what_comes_after_close_is_lost_and_harms_nobody(make):
    queue = make(body_bytes_max=3)
    running = queue.writer.copy(0)
    running.request(b"before", 6)
    assert queue.writer.unread_bytes == 48
    queue.writer.close()
    following = RingWriter(queue.path, CAPACITY, body_bytes_max=10)
    running.response(b"too late and too long")
    running.end()
    late = queue.writer.copy(0)
    late.request(b"late", 4)
    late.end()
    queue.writer.settle()
    assert [record.kind for record in queue.drain()] == [Kind.REQUEST, Kind.START]
    assert queue.reader.status.get(Slot.RECORDS_DROPPED) == 0
    queue.writer = following


@pytest.mark.parametrize("half", [False, True])
def test_an_answer_and_its_end_overwrite_nothing_that_is_written_when_room_comes_back(make, half):
    """The first answer after a full queue: what was owed, and that something is lost, is written just before it."""
    queue = make(body_bytes_max=1 << 22)
    if half:  # the head in the middle of the ring, so that one place has room for both
        queue.writer.copy(0).request(b"r" * (CAPACITY // 2), 1)
        queue.drain()
    waiting = queue.writer.copy(0)
    waiting.request(b"w", 1)
    dropped = queue.writer.copy(0)
    while not queue.writer.status.get(Slot.RECORDS_DROPPED):
        dropped.request(b"r" * 1000, 1)
    queue.drain()
    waiting.last(b"HTTP/1.1 200 OK\r\n\r\n", 19, 0)
    records = [(Kind(record.kind).name, record.exchange) for record in queue.drain()]
    exchange = records[-1][1]
    assert records == [("GAP", records[0][1]), ("RESPONSE", exchange), ("END", exchange)]
    assert queue.writer._slots[S_LOST_RECORDS] == 0

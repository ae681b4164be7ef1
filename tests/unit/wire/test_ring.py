"""What the writer puts on the ring: records in order, their times, bodies cut at the limit, and a new writer."""

from __future__ import annotations

import dataclasses
import random
import tempfile
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queues import CAPACITY, HEAD_BYTES, Queue, shown

from sidecar.wire import ring as ring_module
from sidecar.wire.records import HEAD, START_RESERVES, EndFlag, Kind
from sidecar.wire.ring import RingWriter
from sidecar.wire.ringfile import S_TIME_US
from sidecar.wire.status import Slot


def test_an_exchange_is_its_records_in_order(make):
    queue = make()
    copy = queue.writer.copy(7)
    copy.request(HEAD_BYTES, len(HEAD_BYTES))
    copy.request(b"abc")
    copy.response(b"HTTP/1.1 204 No Content\r\n\r\n", 27)
    copy.end(EndFlag.ANSWERED_BY_SIDECAR)
    records = queue.drain()
    assert shown(records) == [
        ("REQUEST", HEAD_BYTES),
        ("REQUEST", b"abc"),
        ("RESPONSE", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("END", b""),
    ]
    first = records[0].sequence
    assert first == START_RESERVES + 2, "after START and its block"
    assert [record.sequence for record in records] == [first, first + 1, first + 2, first + 3]
    assert {(record.exchange, record.listener) for record in records} == {(first, 7)}
    assert [record.flags for record in records] == [HEAD, 0, HEAD, EndFlag.ANSWERED_BY_SIDECAR]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 20_000), st.booleans(), st.booleans()), max_size=40), st.integers(0, 20_000))
def test_an_answer_and_its_end_by_one_store_are_the_same_two_records(exchanges, body_bytes_max):
    """Whatever the sizes, where the ring ends, and when its room does: nobody can tell which way they were written."""
    with tempfile.TemporaryDirectory() as directory:
        apart, together = (Queue(f"{directory}/{name}", body_bytes_max=body_bytes_max) for name in ("a", "b"))
        seen = ([], [])
        for size, with_body, read in exchanges:
            answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * size * with_body
            for queue in (apart, together):
                copy = queue.writer.copy(3)
                copy.request(b"r" * (size % 700 + 1), 1)
                if queue is apart:
                    copy.response(answer, 19)
                    copy.end(EndFlag.ABORTED_BY_CLIENT)
                else:
                    copy.last(answer, 19, EndFlag.ABORTED_BY_CLIENT)
                copy.end()
                copy.response(b"late")
            if read:
                for records, queue in zip(seen, (apart, together), strict=True):
                    records += [
                        (*dataclasses.astuple(record)[:5], *dataclasses.astuple(record)[6:]) for record in queue.drain()
                    ]
        assert seen[0] == seen[1]
        assert apart.counts() == together.counts()
        assert apart.writer._open == together.writer._open
        apart.close()
        together.close()


def test_what_is_empty_or_late_leaves_no_record(make):
    queue = make()
    copy = queue.writer.copy(0)
    copy.end()
    copy.request(b"after the end", 13)
    empty = queue.writer.copy(0)
    empty.request(b"")
    empty.end()
    twice = queue.writer.copy(0)
    twice.request(b"a", 1)
    twice.response(b"")
    twice.end()
    twice.end()
    twice.response(b"late")
    assert shown(queue.drain()) == [("REQUEST", b"a"), ("END", b"")]
    assert queue.counts() == (0, 0, 0, 0)


def test_any_sizes_go_round_and_round_unchanged(make):
    queue = make()
    chance = random.Random(7)
    sent, received = [], []
    for number in range(300):
        copy = queue.writer.copy(number)
        data = chance.randbytes(chance.randint(1, 12_000))
        copy.request(memoryview(data) if number % 3 == 0 else bytearray(data) if number % 3 == 1 else data)
        copy.end()
        sent.append(data)
        records = queue.drain()
        assert records[-1].kind == Kind.END
        received.append(b"".join(record.payload for record in records))
    assert received == sent
    assert queue.reader.position > 10 * CAPACITY
    assert queue.counts() == (0, 0, 0, 0)


def test_a_small_step_back_of_the_clock_is_not_followed_not_even_over_a_restart(make, monkeypatch):
    queue = make()

    class Clock:
        now_us = 2_000_000_000_000_000

        @classmethod
        def time_ns(cls):
            return cls.now_us * 1000

    monkeypatch.setattr(ring_module, "time", Clock)
    copy = queue.writer.copy(0)
    times = []
    for step in (0, 5, -1_000_000, 7):
        Clock.now_us += step
        copy.request(b"x")
        times += [record.time_us - 2_000_000_000_000_000 for record in queue.drain()]
    assert times == [0, 5, 5, 5]
    queue.writer.close()
    queue.writer = RingWriter(queue.path, CAPACITY, body_bytes_max=10)
    (start,) = queue.drain()
    assert start.time_us - 2_000_000_000_000_000 == 5


def test_a_clock_that_was_far_ahead_is_followed_back_also_by_the_next_writer(make, monkeypatch):
    queue = make()
    real_us = time.time_ns() // 1000
    year_us = 365 * 24 * 3600 * 1_000_000

    class Ahead:
        @staticmethod
        def time_ns():
            return (real_us + year_us) * 1000

    monkeypatch.setattr(ring_module, "time", Ahead)
    queue.writer.copy(0).request(b"ahead")
    (ahead,) = queue.drain()
    assert ahead.time_us == real_us + year_us
    monkeypatch.undo()
    queue.writer.close()
    queue.writer = RingWriter(queue.path, CAPACITY, body_bytes_max=10)
    (start,) = queue.drain()
    assert queue.reader.unread_us() is None
    assert real_us <= start.time_us <= time.time_ns() // 1000
    assert start.sequence > ahead.sequence
    queue.writer._slots[S_TIME_US] -= year_us  # another step back, the record not committed yet
    assert queue.reader.unread_us() == start.time_us - year_us


def test_times_are_those_of_the_wall_clock(make):
    queue = make()
    before_us = time.time_ns() // 1000
    queue.writer.copy(0).request(b"x")
    (record,) = queue.drain()
    assert before_us <= record.time_us <= time.time_ns() // 1000


@pytest.mark.parametrize("split", [1, 3, 10, 1000])
def test_a_body_is_cut_at_the_limit_to_the_byte_and_its_head_is_not(make, split):
    queue = make(body_bytes_max=10)
    copy = queue.writer.copy(0)
    copy.request(HEAD_BYTES + b"0123456789", len(HEAD_BYTES))
    body = b"abcdefghijklmnop"
    copy.response(b"HTTP/1.1 200 OK\r\n\r\n", 19)
    for at in range(0, len(body), split):
        copy.response(body[at : at + split])
    copy.end()
    records = queue.drain()
    assert b"".join(r.payload for r in records if r.kind == Kind.REQUEST) == HEAD_BYTES + b"0123456789"
    assert b"".join(r.payload for r in records if r.kind == Kind.RESPONSE) == b"HTTP/1.1 200 OK\r\n\r\nabcdefghij"
    assert records[-1].flags == EndFlag.BODY_CUT
    assert queue.counts() == (0, 0, 0, 1)


def test_a_body_cut_in_the_chunk_of_its_head_keeps_the_head_behind_interim_answers(make):
    queue = make(body_bytes_max=3)
    copy = queue.writer.copy(0)
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nServer: a\r\n\r\n"
    copy.response(answer + b"abcdef", len(answer))
    copy.end()
    records = queue.drain()
    assert b"".join(record.payload for record in records) == answer + b"abc"
    assert records[-1].flags == EndFlag.BODY_CUT


def test_a_head_larger_than_a_record_is_kept_in_pieces(make):
    queue = make(body_bytes_max=0)
    head = b"GET / HTTP/1.1\r\nX: " + b"y" * 20_000
    copy = queue.writer.copy(0)
    copy.request(head, len(head))
    copy.request(b"\r\n\r\n", 4)
    copy.end()
    records = queue.drain()
    assert b"".join(record.payload for record in records) == head + b"\r\n\r\n"
    assert records[-1].flags == 0


def test_numbers_and_counters_run_on_in_the_next_writer(make):
    queue = make()
    queue.writer.copy(0).request(b"a", 1)
    queue.writer.status.add(Slot.REQUESTS, 5)
    queue.writer.status.add(Slot.CONNECTIONS_OPEN, 5)
    producer, sequence = queue.writer.producer, queue.writer._next
    queue.writer._file.close()
    queue.writer._lock.close()
    queue.writer = RingWriter(queue.path, CAPACITY, body_bytes_max=10)
    assert queue.writer.producer == producer == queue.reader.producer
    assert queue.writer.status.get(Slot.REQUESTS) == 5
    assert queue.writer.status.get(Slot.CONNECTIONS_OPEN) == 0
    (_, start) = queue.drain()
    assert (start.kind, start.sequence, start.flags) == (Kind.START, sequence, 0)


def test_a_record_under_way_is_known_of_before_it_is_there(make):
    queue = make()
    assert queue.reader.unread_us() is None
    later = queue.writer._slots[S_TIME_US] + 1_000_000
    queue.writer._slots[S_TIME_US] = later
    assert queue.reader.unread_us() == later

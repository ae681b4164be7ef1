from __future__ import annotations

import pytest

from sidecar.observer import spill as spill_module
from sidecar.observer.reader import ExchangeReader, Timing
from sidecar.observer.spill import BEGINNING_BYTES
from sidecar.wire import ring as ring_module
from sidecar.wire.records import START_RESERVES, EndFlag
from sidecar.wire.ring import RingReader, RingWriter
from sidecar.wire.ringfile import DATA_OFFSET
from sidecar.wire.status import Slot

CAPACITY = 64 * 1024
T0 = 1_700_000_000_000_000
MIB = 1 << 20


class Clock:
    """Stands in for the `time` module in the writer: microseconds that only the test moves."""

    def __init__(self):
        self.us = T0

    def time_ns(self):
        return self.us * 1000


@pytest.fixture
def clock(monkeypatch):
    fake = Clock()
    monkeypatch.setattr(ring_module, "time", fake)
    return fake


class Ends:
    """A writer and a reader of one queue, each of which can be killed and started again."""

    def __init__(self, directory, *, spill_bytes_max=MIB):
        self.directory = directory
        self.spill_bytes_max = spill_bytes_max
        self.writer = self.ring = self.reader = None
        self.start_writer()
        self.start_reader()

    def start_writer(self):
        self.writer = RingWriter(str(self.directory / "queue"), CAPACITY, body_bytes_max=MIB)

    def kill_writer(self):
        self.writer._file.close()
        self.writer._lock.close()
        self.start_writer()

    def start_reader(self):
        self.ring = RingReader(str(self.directory / "queue"))
        self.reader = ExchangeReader(self.ring, self.directory / "spill", spill_bytes_max=self.spill_bytes_max)

    def kill_reader(self):
        self.ring.close()  # unmaps and unlocks, as the kernel does; stores nothing
        self.start_reader()

    def close(self):
        self.ring.close()
        self.writer.close()


@pytest.fixture
def ends(tmp_path, clock):
    made = Ends(tmp_path)
    yield made
    made.close()


def test_an_exchange_comes_out_whole_with_its_identity(ends, clock):
    copy = ends.writer.copy(3)
    copy.request(b"POST / HTTP/1.1\r\n\r\nab", head=True)
    clock.us += 1_000_000
    copy.response(b"HTTP/1.1 200 OK\r\n\r\n", head=True)
    copy.response(b"xyz")
    assert ends.reader.poll() == []
    clock.us += 5_000_000
    copy.end(EndFlag.ABORTED_BY_CLIENT)
    (raw,) = ends.reader.poll()
    first = START_RESERVES + 2
    assert (raw.producer, raw.first, raw.sequence, raw.listener) == (ends.writer.producer, first, first + 3, 3)
    assert (raw.request, raw.response) == (b"POST / HTTP/1.1\r\n\r\nab", b"HTTP/1.1 200 OK\r\n\r\nxyz")
    assert (raw.started_ms, raw.at_ms) == (T0 // 1000, T0 // 1000 + 1000), "the last byte, not the END"
    assert (raw.flags, raw.finished) == (EndFlag.ABORTED_BY_CLIENT, True)
    assert ends.reader.poll() == []


def timed(ends, clock, *steps, flags=0):
    """The timing of an exchange of these steps, each a microsecond after the one before."""
    copy = ends.writer.copy(0)
    for step in steps:
        clock.us += 1
        (copy.request if step == "ask" else copy.response)(b"x")
    clock.us += 1
    copy.end(flags)
    [raw] = ends.reader.poll()
    return raw.timing


def test_an_exchange_says_when_its_bytes_passed(ends, clock):
    assert timed(ends, clock, "ask", "ask", "answer", "answer") == Timing(T0 + 2, T0 + 3, T0 + 4, T0 + 5)


def test_what_was_answered_before_the_request_was_whole_is_no_first_byte(ends, clock):
    assert timed(ends, clock, "ask", "answer", "ask", "answer") == Timing(T0 + 3, T0 + 4, T0 + 4, T0 + 5)
    assert timed(ends, clock, "ask", "answer", "ask") is None
    assert timed(ends, clock, "ask") is None


def test_what_was_not_released_comes_again_and_what_was_does_not(ends):
    copies = [ends.writer.copy(0) for _ in range(2)]
    for copy in copies:
        copy.request(b"a", head=True)
        copy.end()
    first = ends.reader.poll()
    ends.kill_reader()
    assert ends.reader.poll() == first
    ends.reader.release()
    ends.kill_reader()
    assert ends.reader.poll() == []
    assert ends.ring.tail == ends.ring.position


def test_a_released_exchange_that_an_open_one_keeps_in_the_queue_does_not_come_again(ends):
    still, done = ends.writer.copy(0), ends.writer.copy(0)
    still.request(b"first", head=True)
    done.request(b"second", head=True)
    done.end()
    assert [raw.request for raw in ends.reader.poll()] == [b"second"]
    ends.reader.release()
    ends.kill_reader()
    assert ends.reader.poll() == []
    still.end()
    assert [raw.request for raw in ends.reader.poll()] == [b"first"]


def test_a_dead_proxy_ends_what_it_left_in_order_of_number(ends):
    copies = [ends.writer.copy(n) for n in range(3)]
    for n, copy in enumerate(copies):
        copy.request(b"request %d" % n, head=True)
    copies[1].end()
    start = ends.writer._next
    ends.kill_writer()
    done, *left = ends.reader.poll()
    assert done.request == b"request 1"
    assert [(raw.request, raw.sequence, raw.flags) for raw in left] == [
        (b"request 0", start + 1, EndFlag.ABORTED_BY_ORIGIN),
        (b"request 2", start + 2, EndFlag.ABORTED_BY_ORIGIN),
    ]
    ends.kill_reader()
    assert ends.reader.poll() == [done, *left]


def test_an_exchange_that_runs_on_is_shown_every_thirty_seconds(ends, clock):
    copy = ends.writer.copy(0)
    copy.request(b"r", head=True)
    sights = []
    for _ in range(9):
        clock.us += 10_000_000
        copy.response(b".")
        sights += ends.reader.poll()
        ends.reader.release()
        ends.kill_reader()
    assert [(raw.response, raw.finished) for raw in sights] == [(b"." * n, False) for n in (3, 6, 9)]
    assert len({raw.sequence for raw in sights}) == 3
    assert [raw.at_ms - raw.started_ms for raw in sights] == [30_000, 60_000, 90_000]
    copy.end()
    (last,) = ends.reader.poll()
    assert (last.finished, last.response) == (True, b"." * 9)


def test_a_long_exchange_does_not_hold_the_queue(ends, tmp_path):
    long = ends.writer.copy(0)
    long.request(b"long", head=True)
    expected = b""
    for n in range(100):
        chunk = bytes([n]) * 2000
        expected += chunk
        long.response(chunk)
        short = ends.writer.copy(0)
        short.request(b"short %d" % n, head=True)
        short.end()
        assert [raw.request for raw in ends.reader.poll()] == [b"short %d" % n]
        ends.reader.release()
        if n % 10 == 0:
            ends.kill_reader()
    assert ends.writer.status.get(Slot.RECORDS_DROPPED) == 0
    assert ends.writer.status.get(Slot.SPILL_BYTES) > len(expected) - CAPACITY
    assert [p.stat().st_mode & 0o777 for p in (tmp_path / "spill").iterdir()] == [0o600]
    long.end()
    (raw,) = ends.reader.poll()
    assert (raw.request, raw.response, raw.flags) == (b"long", expected, EndFlag(0))
    ends.kill_reader()
    assert ends.reader.poll() == [raw]
    ends.reader.release()
    assert list((tmp_path / "spill").iterdir()) == []
    assert ends.writer.status.get(Slot.SPILL_BYTES) == 0


def test_a_spilled_exchange_of_a_dead_proxy_ends_too(ends):
    long = ends.writer.copy(0)
    long.request(b"long", head=True)
    for _ in range(20):
        long.response(b"x" * 2000)
        ends.reader.poll()
        ends.reader.release()
    ends.kill_reader()
    ends.kill_writer()
    (raw,) = ends.reader.poll()
    assert (raw.request, raw.response, raw.flags) == (b"long", b"x" * 40_000, EndFlag.ABORTED_BY_ORIGIN)


def test_past_the_spill_bound_the_largest_body_goes_and_says_so(ends):
    ends.spill_bytes_max = 100_000
    ends.kill_reader()
    small, large = ends.writer.copy(0), ends.writer.copy(0)
    small.request(b"small", head=True)
    large.request(b"large", head=True)
    for _ in range(40):
        small.response(b"s" * 100)
        large.response(b"l" * 4000)
        ends.reader.poll()
        ends.reader.release()
        assert ends.reader._spill.bytes <= 100_000
    assert ends.writer.status.get(Slot.SPILL_DROPPED) == 1
    ends.kill_reader()
    small.end()
    large.end()
    first, second = ends.reader.poll()
    assert (first.response, first.flags) == (b"s" * 4000, EndFlag(0))
    assert (second.request, second.response, second.flags) == (b"large", b"l" * BEGINNING_BYTES, EndFlag.DROPPED)


def test_a_full_tmpfs_keeps_the_records_in_the_queue(ends, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    long = ends.writer.copy(0)
    long.request(b"long", head=True)
    with monkeypatch.context() as patch:
        patch.setattr(spill_module, "_write_all", full)
        for _ in range(12):
            long.response(b"x" * 4000)
            assert ends.reader.poll() == []
            ends.reader.release()
        assert ends.ring.tail == 40, "only START was released"
    long.end()
    ends.kill_reader()
    (raw,) = ends.reader.poll()
    assert raw.response == b"x" * 48_000


def test_a_spill_file_that_somebody_removed_costs_its_bytes_only(ends, tmp_path):
    long = ends.writer.copy(0)
    long.request(b"long", head=True)
    for _ in range(12):
        long.response(b"x" * 4000)
        ends.reader.poll()
        ends.reader.release()
    for path in (tmp_path / "spill").iterdir():
        path.unlink()
    long.end()
    (raw,) = ends.reader.poll()
    assert raw.flags == EndFlag.DROPPED
    ends.reader.release()


def test_spilled_exchanges_of_another_queue_are_removed_and_counted(ends, tmp_path):
    (tmp_path / "spill" / "0123456789abcdef-7").write_bytes(b"?" * 100)
    ends.kill_reader()
    assert list((tmp_path / "spill").iterdir()) == []
    assert ends.writer.status.get(Slot.SPILL_DROPPED) == 1


def test_damage_in_the_queue_is_skipped_counted_and_marked(ends):
    lost, kept = ends.writer.copy(0), ends.writer.copy(0)
    kept.request(b"kept", head=True)
    at = DATA_OFFSET + ends.writer._head
    lost.request(b"lost", head=True)
    kept.response(b"not seen")
    ends.writer._memory[at + 8] ^= 0xFF
    assert ends.reader.poll() == []
    kept.response(b"too late")
    kept.end()
    lost.end()
    (raw,) = ends.reader.poll()
    assert (raw.request, raw.response, raw.flags) == (b"kept", b"", EndFlag.DROPPED)
    assert ends.writer.status.get(Slot.QUEUE_CORRUPTIONS) == 1
    ends.kill_reader()
    assert ends.reader.poll() == [raw], "a replay skips the same records"
    assert ends.writer.status.get(Slot.QUEUE_CORRUPTIONS) == 1


def test_what_a_dead_proxy_dropped_marks_the_exchanges_that_it_left(ends):
    first = ends.writer.copy(0)
    first.request(b"first", head=True)
    while not ends.writer.status.get(Slot.RECORDS_DROPPED):
        first.response(b"x" * 4000)
    ends.kill_writer()
    (raw,) = ends.reader.poll()
    assert raw.flags == EndFlag.ABORTED_BY_ORIGIN | EndFlag.DROPPED


def test_a_gap_marks_an_exchange_only_when_its_own_end_is_missing(ends):
    long, burst = ends.writer.copy(0), ends.writer.copy(0)
    long.request(b"long", head=True)
    while not ends.writer.status.get(Slot.RECORDS_DROPPED):
        burst.request(b"x" * 4000)
    burst.end()
    assert [raw.flags for raw in ends.reader.poll()] == [EndFlag.DROPPED]
    ends.reader.release()
    ends.writer.settle()
    other = ends.writer.copy(0)
    other.request(b"other", head=True)
    for _ in range(2):
        ends.kill_reader()
        assert ends.reader.poll() == []
        ends.reader.release()
    long.end()
    assert [raw.flags for raw in ends.reader.poll()] == [EndFlag(0)]
    ends.kill_writer()
    assert [raw.flags for raw in ends.reader.poll()] == [EndFlag.ABORTED_BY_ORIGIN], "it began after the gap"


def test_marks_wait_for_what_is_unread_unreleased_and_open(ends, clock):
    t0 = T0 // 1000
    assert ends.reader.poll() == []
    ends.reader.release()
    assert ends.reader.mark_ms(t0 + 5_000) == t0 + 5_000
    clock.us += 10_000_000
    copy = ends.writer.copy(0)
    copy.request(b"a", head=True)
    assert ends.reader.mark_ms(t0 + 20_000) == t0 + 10_000, "unread"
    ends.reader.poll()
    ends.reader.release()
    assert ends.reader.mark_ms(t0 + 20_000) == t0 + 10_000, "open"
    clock.us += 5_000_000
    copy.response(b"b")
    ends.reader.poll()
    ends.reader.release()
    assert ends.reader.mark_ms(t0 + 20_000) == t0 + 10_000, "open, not shown since it began"
    assert ends.reader.mark_ms(t0 + 15_000 + 600_000) == t0 + 10_000
    assert ends.reader.mark_ms(t0 + 15_001 + 600_000) == t0 + 615_001, "silent for ten minutes"
    copy.end()
    ends.reader.poll()
    assert ends.reader.mark_ms(t0 + 700_000) == t0 + 15_000, "not released"
    ends.reader.release()
    assert ends.reader.mark_ms(t0 + 700_000) == t0 + 700_000
    ends.kill_reader()
    assert ends.reader.mark_ms(t0 + 700_000) == t0 + 700_000


def test_a_stream_over_a_large_step_back_of_the_clock_is_still_seen_now_and_then(tmp_path, clock):
    ends = Ends(tmp_path)
    copy = ends.writer.copy(0)
    copy.request(b"GET / HTTP/1.1\r\n\r\n", head=True)
    ends.reader.poll()
    clock.us -= 24 * 3600 * 1_000_000
    copy.response(b"HTTP/1.1 200 OK\r\n\r\n", head=True)
    (seen,) = ends.reader.poll()
    assert not seen.finished
    clock.us += 30_000_000
    copy.response(b"more")
    (seen,) = ends.reader.poll()
    assert seen.at_ms == clock.us // 1000

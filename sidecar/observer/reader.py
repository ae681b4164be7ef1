"""Queue records → whole exchanges, each with the identity that it keeps under replay.

The reader collects the chunks of each exchange until its END. What it hands out is not forgotten before `release`: then
it is in the journal, and the queue gets its room back up to the oldest record that an open exchange still needs. When
open exchanges hold back more than a quarter of the queue, the oldest go to spill files (`observer/spill.py`).

Killed at any instant and started again, it hands out exactly what was not released, with the same sequences. The order
in `release` sees to that: first the sequence up to which everything is safe is stored in the queue's header (a replay
leaves out what is not above it), then open exchanges are spilled, then files of finished ones go, and only then the
queue's room. Sequences only grow, in the order in which exchanges are handed out.

A START means that the former proxy died: every exchange it left open ends there, in order of number, with a sequence of
the START's block. An exchange that runs on is shown as it stands every 30 seconds of record time, under the sequence of
the record that made it due.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from sidecar.observer.spill import OpenExchange, Spill, largest
from sidecar.wire.records import LOST_BEFORE, START_RESERVES, EndFlag, Kind, Record
from sidecar.wire.ring import RingReader
from sidecar.wire.status import Slot

READ_BYTES: Final = 1 << 20  # of the queue at a time
POLL_BYTES: Final = 8 << 20  # of exchanges handed out by one poll, about
VIEW_US: Final = 30_000_000
MARK_HELD_MS: Final = 10 * 60_000  # an open exchange that has been silent for longer does not hold the mark

_START, _REQUEST, _RESPONSE, _END, _GAP = (int(kind) for kind in Kind)


@dataclass(frozen=True, slots=True)
class Timing:
    """When bytes of one exchange arrived at the proxy, in Unix microseconds: the request's last, the response's first
    and last; and when the proxy was done with it.
    """

    asked_us: int
    first_answer_us: int
    last_answer_us: int
    ended_us: int


@dataclass(frozen=True, slots=True)
class RawExchange:
    """One exchange as bytes, or, with `finished` False, as far as it has come.

    (`producer`, `sequence`) identify this sight of it, `first` is the exchange's number. Times are Unix milliseconds:
    of the first byte and of the last byte copied. `request` and `response` are prefixes of what was sent: all of it
    unless `flags` say BODY_CUT or DROPPED. `timing` is None where it is not known, or the two overlapped.
    """

    producer: str
    sequence: int
    first: int
    listener: int
    started_ms: int
    at_ms: int
    request: bytes
    response: bytes
    flags: EndFlag
    finished: bool
    timing: Timing | None = None


class ExchangeReader:
    """Reads exchanges off `ring`; copies of long ones wait in `spill_dir`, together at most `spill_bytes_max`."""

    def __init__(self, ring: RingReader, spill_dir: str | os.PathLike[str], *, spill_bytes_max: int) -> None:
        self._ring = ring
        self._status = ring.status
        self._spill = Spill(spill_dir, ring.producer)
        self._spill_bytes_max = spill_bytes_max
        self._emitted = ring.acknowledged  # the last sequence handed out
        self._finished: list[int] = []  # numbers of exchanges handed out whole, not released
        self._unreleased_us: int | None = None  # time of the oldest record read since the last release
        recovered, foreign = self._spill.recover()
        self._open = {exchange.first: exchange for exchange in recovered}
        self._status.add(Slot.SPILL_DROPPED, foreign)
        self._status.set(Slot.SPILL_BYTES, self._spill.bytes)

    @property
    def open_exchanges(self) -> int:
        """How many exchanges wait for their END."""
        return len(self._open)

    def poll(self) -> list[RawExchange]:
        """The next exchanges; an empty list means that the queue holds nothing that could complete one.

        Reads at least until something is there to hand out or the queue is read up. Call `release` once all that was
        handed out is safe.
        """
        out: list[RawExchange] = []
        size = 0
        while size < POLL_BYTES and (records := self._ring.read(READ_BYTES)):
            if self._unreleased_us is None:
                self._unreleased_us = records[0].time_us
            before = len(out)
            for record in records:
                self._take(record, out)
            size += sum(len(raw.request) + len(raw.response) for raw in out[before:])
        return out

    def release(self) -> None:
        """Everything handed out so far is safe: give back the room in the queue that nothing needs any more."""
        if self._unreleased_us is None:
            return
        self._ring.acknowledge(self._emitted)
        self._make_room()
        for first in self._finished:
            self._spill.delete(first)
        self._finished.clear()
        self._ring.release(self._oldest_needed())
        self._unreleased_us = None
        self._status.set(Slot.SPILL_BYTES, self._spill.bytes)

    def mark_ms(self, now_ms: int) -> int:
        """Event time up to which nothing is unseen.

        An exchange that still runs holds it where the session last heard of it, at its beginning or its last view:
        until the next one, no deadline after that may fire. One whose last byte is long ago holds nothing.
        """
        times_ms = [now_ms]
        times_ms += (t // 1000 for t in (self._ring.unread_us(), self._unreleased_us) if t is not None)
        silent_ms = now_ms - MARK_HELD_MS
        times_ms += (
            exchange.viewed_us // 1000 for exchange in self._open.values() if exchange.last_us // 1000 >= silent_ms
        )
        return min(times_ms)

    def _take(self, record: Record, out: list[RawExchange]) -> None:
        """Take in one record, and hand out what it completes or makes due."""
        if record.kind in {_REQUEST, _RESPONSE}:
            self._take_chunk(record, out)
        elif record.kind == _END:
            exchange = self._open.pop(record.exchange, None)
            if exchange is not None:
                flags = EndFlag(record.flags) | (EndFlag.DROPPED if exchange.lost else EndFlag(0))
                self._emit(exchange, record.sequence, flags, out, finished=True, timing=_timing(exchange, record))
        elif record.kind == _START:
            self._end_all(record, out)
        elif record.kind == _GAP:
            for exchange in self._open.values():
                _note_gap(exchange, record)

    def _take_chunk(self, record: Record, out: list[RawExchange]) -> None:
        exchange = self._open.get(record.exchange)
        if exchange is None:
            if record.sequence != record.exchange:
                return  # of an exchange that was released before, or whose beginning could not be read
            exchange = self._begin(record)
        elif record.sequence <= exchange.sequence:
            return  # is in its spill file
        _add(exchange, record)
        if abs(record.time_us - exchange.viewed_us) >= VIEW_US:  # the clock may have been set back
            exchange.viewed_us = record.time_us
            self._emit(exchange, record.sequence, EndFlag(0), out, finished=False)

    def _begin(self, record: Record) -> OpenExchange:
        exchange = OpenExchange(
            first=record.exchange,
            listener=record.listener,
            sequence=0,
            started_us=record.time_us,
            last_us=record.time_us,
            viewed_us=record.time_us,
        )
        self._open[exchange.first] = exchange
        return exchange

    def _end_all(self, start: Record, out: list[RawExchange]) -> None:
        """What the former proxy left open ends here."""
        left = sorted(first for first in self._open if first < start.sequence)
        for number, first in enumerate(left[:START_RESERVES], start=1):
            exchange = self._open.pop(first)
            flags = EndFlag.ABORTED_BY_ORIGIN
            if exchange.lost or exchange.gap or start.flags & LOST_BEFORE:
                flags |= EndFlag.DROPPED
            self._emit(exchange, start.sequence + number, flags, out, finished=True)

    def _emit(
        self,
        exchange: OpenExchange,
        sequence: int,
        flags: EndFlag,
        out: list[RawExchange],
        *,
        finished: bool,
        timing: Timing | None = None,
    ) -> None:
        if finished:
            self._finished.append(exchange.first)
        if sequence <= self._emitted:
            return  # was released before the reader was started again
        self._emitted = sequence
        try:
            request, response = self._spill.read(exchange)
        except OSError:  # somebody removed the file; the exchange still counts as activity
            request, response, flags = b"", b"", flags | EndFlag.DROPPED
            self._status.add(Slot.SPILL_DROPPED)
        out.append(
            RawExchange(
                producer=self._ring.producer,
                sequence=sequence,
                first=exchange.first,
                listener=exchange.listener,
                started_ms=exchange.started_us // 1000,
                at_ms=exchange.last_us // 1000,
                request=request,
                response=response,
                flags=flags,
                finished=finished,
                timing=timing,
            )
        )

    def _oldest_needed(self) -> int:
        holds = (exchange.hold for exchange in self._open.values() if exchange.hold is not None)
        return min(holds, default=self._ring.position)

    def _make_room(self) -> None:
        """Spill the exchanges that hold back more than an eighth of the queue, once any holds back a quarter."""
        position, capacity = self._ring.position, self._ring.capacity
        if position - self._oldest_needed() <= capacity // 4:
            return
        for exchange in list(self._open.values()):
            if exchange.hold is not None and exchange.hold < position - capacity // 8:
                try:
                    self._spill.save(exchange)
                except OSError:
                    # No room for files: the records stay in the queue. Another exchange's body may make room.
                    self._shed_one()
        while self._spill.bytes > self._spill_bytes_max and self._shed_one():
            pass

    def _shed_one(self) -> bool:
        exchange = largest(self._open.values())
        if exchange is None:
            return False
        self._status.add(Slot.SPILL_DROPPED)
        try:
            self._spill.shed(exchange)
        except OSError:
            exchange.lost, exchange.spilled_bytes = True, 0
            exchange.request.clear()
            exchange.response.clear()
        return True


def _add(exchange: OpenExchange, record: Record) -> None:
    exchange.sequence = record.sequence
    exchange.last_us = record.time_us
    if record.kind == _REQUEST:
        # What was answered before the request was whole says nothing about how long the answer took.
        exchange.asked_us, exchange.first_answer_us = record.time_us, 0
    else:
        exchange.first_answer_us = exchange.first_answer_us or record.time_us
        exchange.last_answer_us = record.time_us
    if exchange.hold is None:
        exchange.hold = record.position
    if exchange.lost:
        return  # the copy stays a prefix of what was sent
    (exchange.request if record.kind == _REQUEST else exchange.response).append(record.payload)


def _timing(exchange: OpenExchange, end: Record) -> Timing | None:
    if not exchange.asked_us or not exchange.first_answer_us:
        return None
    return Timing(exchange.asked_us, exchange.first_answer_us, exchange.last_answer_us, end.time_us)


def _note_gap(exchange: OpenExchange, record: Record) -> None:
    """The proxy dropped records (GAP), or some could not be read (sequence 0: then a part is missing for certain)."""
    if exchange.hold is None:
        exchange.hold = record.position
    if record.sequence == 0:
        exchange.lost = True
    elif record.sequence > exchange.sequence:
        exchange.gap = True
        exchange.sequence = record.sequence

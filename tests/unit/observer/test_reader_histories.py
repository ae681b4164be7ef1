"""Any interleaving of exchanges, polls, releases and crashes of either side, against a model that is a list."""

from __future__ import annotations

import itertools
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.observer import spill as spill_module
from sidecar.observer.reader import ExchangeReader
from sidecar.observer.spill import STATE_BYTES
from sidecar.wire import ring as ring_module
from sidecar.wire.records import EndFlag, Kind
from sidecar.wire.ring import RingReader, RingWriter
from sidecar.wire.ringfile import DATA_OFFSET, S_HEAD, S_LOST_RECORDS, S_NEXT
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

    def kill_writer(self, *, torn=False):
        if torn:  # in the middle of a record: the bytes are there, the number is taken, the head is not moved
            slots = self.writer._slots
            slots[S_NEXT] += 1
            at = DATA_OFFSET + slots[S_HEAD] % CAPACITY
            self.writer._memory[at : at + 8] = b"\xee" * 8
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


class KilledError(Exception):
    """SIGKILL, in the middle of `release`."""


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 3), st.integers(1, 3000)),
        st.tuples(st.just("request"), st.integers(0, 3), st.integers(1, 4000)),
        st.tuples(st.just("response"), st.integers(0, 3), st.integers(1, 4000)),
        st.tuples(st.just("stream"), st.integers(0, 3), st.integers(2, 5)),
        st.tuples(st.just("end"), st.integers(0, 3), st.sampled_from([0, 1, 2, 4, 32])),
        st.tuples(st.just("poll"), st.just(0), st.just(0)),
        st.tuples(st.just("release"), st.just(0), st.just(0)),
        st.tuples(st.just("kill_in_release"), st.integers(1, 8), st.just(0)),
        st.tuples(st.just("kill_reader"), st.just(0), st.just(0)),
        st.tuples(st.just("kill_writer"), st.booleans(), st.just(0)),
        st.tuples(st.just("wait"), st.just(0), st.integers(1, 40)),
    ),
    max_size=60,
)


class Model:
    """What must come out: by sequence, (first, request, response, flags, finished)."""

    def __init__(self, ends, clock):
        self.ends, self.clock = ends, clock
        self.open: dict[int, dict] = {}
        self.expected: dict[int, tuple] = {}
        self.journal: dict[int, object] = {}
        self.released: set[int] = set()
        self.pending: list = []
        self.left: list[dict] = []  # open when their writer was killed, until the next START
        self.end_sequences: dict[int, int] = {}
        self.seen: set[str] = set()  # what this history touched
        self.fill = itertools.cycle(range(256))
        self.watch_writer()

    def begin(self, slot, size):
        self.end(slot, 0)
        self.open[slot] = {"copy": self.ends.writer.copy(slot), "request": b"", "response": b"", "viewed": None}
        self.chunk("request", slot, size, size)

    def chunk(self, direction, slot, size, head_bytes=0):
        exchange = self.open.get(slot)
        if exchange is None:
            return
        data = bytes([next(self.fill)]) * size
        dropped = self.ends.writer.status.get(Slot.RECORDS_DROPPED)
        getattr(exchange["copy"], direction)(data, head_bytes)
        if self.ends.writer.status.get(Slot.RECORDS_DROPPED) > dropped:
            exchange["flags"] = EndFlag.DROPPED
            self.seen.add("dropped")
            return
        exchange[direction] += data
        if exchange["viewed"] is None:
            exchange["viewed"], exchange["first"] = self.clock.us, exchange["copy"]._number
        elif self.clock.us - exchange["viewed"] >= 30_000_000:
            exchange["viewed"] = self.clock.us
            self.expect(self.ends.writer._next - 1, exchange, EndFlag(0), finished=False)
            self.seen.add("view")

    def watch_writer(self):
        """Note what the writer commits on its own account: ENDs that were owed, GAPs."""
        commit = self.ends.writer._commit

        def watched(kind, exchange, *more):
            sequence = commit(kind, exchange, *more)
            if kind == Kind.START:
                self.seen.add("late start")
                self.end_left(sequence, lost=more[1])
            elif kind == Kind.END:
                self.end_sequences[exchange] = sequence
            elif kind == Kind.GAP:
                self.seen.add("gap")
                for running in self.open.values():
                    running["gap"] = running["viewed"] is not None
            return sequence

        self.ends.writer._commit = watched

    def expect(self, sequence, exchange, flags, *, finished):
        self.expected[sequence] = (exchange["first"], exchange["request"], exchange["response"], flags, finished)

    def end(self, slot, flags):
        exchange = self.open.pop(slot, None)
        if exchange is None:
            return
        exchange["copy"].end(flags)
        if exchange["viewed"] is None:
            return
        if self.ends.writer._owed:
            self.seen.add("owed")
            self.poll()
            self.release()
            self.ends.writer.settle()
        flags = EndFlag(flags) | exchange.get("flags", EndFlag(0))
        self.expect(self.end_sequences[exchange["first"]], exchange, flags, finished=True)

    def kill_writer(self, *, torn):
        start = self.ends.writer._slots[S_NEXT] + int(torn)
        lost = self.ends.writer._slots[S_LOST_RECORDS]
        self.left += [exchange for exchange in self.open.values() if exchange["viewed"] is not None]
        self.open.clear()
        self.ends.kill_writer(torn=torn)
        if self.ends.writer._started:
            self.end_left(start, lost=lost)
        self.watch_writer()

    def end_left(self, start, *, lost):
        """START is written: what earlier writers left open is over."""
        for number, exchange in enumerate(sorted(self.left, key=lambda left: left["first"]), start=1):
            flags = EndFlag.ABORTED_BY_ORIGIN | exchange.get("flags", EndFlag(0))
            dropped = EndFlag.DROPPED if lost or exchange.get("gap") else EndFlag(0)
            self.expect(start + number, exchange, flags | dropped, finished=True)
        self.left.clear()

    def poll(self):
        for raw in self.ends.reader.poll():
            assert raw.sequence not in self.released
            self.pending.append(raw)

    def keep(self):
        """Into the journal: INSERT OR IGNORE, and a repetition is the same in every byte."""
        for raw in self.pending:
            assert self.journal.setdefault(raw.sequence, raw) == raw
        kept = {raw.sequence for raw in self.pending}
        self.pending = []
        return kept

    def release(self):
        kept = self.keep()
        self.ends.reader.release()
        if self.ends.reader._spill.bytes:
            self.seen.add("spilled")
        self.released |= kept

    def kill_reader(self):
        self.pending = []
        self.ends.kill_reader()

    def kill_in_release(self, step, monkeypatch):
        self.keep()
        steps = itertools.count(1)

        def killing(function, *, partly=None):
            def call(*arguments, **keywords):
                if next(steps) == step:
                    if partly:
                        partly(*arguments)
                    raise KilledError
                return function(*arguments, **keywords)

            return call

        def half(fd, data, offset):
            if len(data) > STATE_BYTES:  # a state lies within one page: the kernel copies it whole or not at all
                os.pwrite(fd, data[: len(data) // 2], offset)

        reader = self.ends.reader
        with monkeypatch.context() as patch:
            patch.setattr(spill_module, "_write_all", killing(spill_module._write_all, partly=half))
            patch.setattr(reader._spill, "delete", killing(reader._spill.delete))
            patch.setattr(self.ends.ring, "acknowledge", killing(self.ends.ring.acknowledge))
            patch.setattr(self.ends.ring, "release", killing(self.ends.ring.release))
            try:
                reader.release()
            except KilledError:
                self.seen.add("killed in release")
            else:
                return
        self.kill_reader()


def run(model, operations, monkeypatch):
    ends = model.ends
    for name, what, more in operations:
        model.clock.us += 1000
        if name == "begin":
            model.begin(what, more)
        elif name in {"request", "response"}:
            model.chunk(name, what, more)
        elif name == "stream":
            for _ in range(more):
                model.chunk("response", what, 4000)
        elif name == "end":
            model.end(what, more)
        elif name == "poll":
            model.poll()
        elif name == "release":
            model.release()
        elif name == "kill_in_release":
            model.kill_in_release(what, monkeypatch)
        elif name == "kill_reader":
            model.kill_reader()
        elif name == "wait":
            model.clock.us += more * 1_000_000
        else:
            model.kill_writer(torn=what)
    for slot in range(4):
        model.end(slot, 0)
    for _ in range(3):
        model.poll()
        model.release()
        ends.writer.settle()


def check(directory, operations):
    """Play a history and compare; returns what it touched."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        clock = Clock()
        monkeypatch.setattr(ring_module, "time", clock)
        ends = Ends(directory)
        try:
            model = Model(ends, clock)
            run(model, operations, monkeypatch)
            found = {
                sequence: (raw.first, raw.request, raw.response, raw.flags, raw.finished)
                for sequence, raw in model.journal.items()
            }
            assert found == model.expected
            assert list((ends.directory / "spill").iterdir()) == []
            assert ends.ring.tail == ends.ring.position
            assert ends.reader.open_exchanges == 0
            return model.seen
        finally:
            ends.close()


@settings(max_examples=100, deadline=None)
@given(operations=OPERATIONS)
def test_any_history_hands_out_every_exchange_once(tmp_path_factory, operations):
    check(tmp_path_factory.mktemp("queue"), operations)


def test_long_histories_hand_out_every_exchange_once(tmp_path):
    seen = set()
    for seed in (*range(40), 114):  # 114: a proxy starts while the queue is full
        chance = random.Random(seed)
        weights = {
            "begin": 4,
            "request": 3,
            "response": 6,
            "stream": 6,
            "end": 3,
            "poll": 4,
            "release": chance.choice([1, 4]),
        }
        weights |= {"kill_in_release": 2, "kill_reader": 1, "kill_writer": 0.5, "wait": 1}
        operations = []
        for name in chance.choices(list(weights), list(weights.values()), k=250):
            what = {"kill_in_release": chance.randint(1, 8), "kill_writer": chance.random() < 0.5}
            size = {"end": chance.choice([0, 1, 2]), "stream": chance.randint(2, 5), "wait": chance.randint(1, 40)}
            operations.append((name, what.get(name, chance.randint(0, 3)), size.get(name, chance.randint(1, 3000))))
        directory = tmp_path / str(seed)
        directory.mkdir()
        try:
            seen |= check(directory, operations)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    assert seen == {"spilled", "killed in release", "dropped", "view", "gap", "owed", "late start"}, (
        "the histories reach all of it"
    )

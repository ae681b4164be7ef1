from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.wire.records import Kind, unpack_gap
from sidecar.wire.ring import RingReader, RingWriter
from sidecar.wire.ringfile import DATA_OFFSET
from sidecar.wire.status import Slot

CAPACITY = 64 * 1024


@pytest.fixture
def ends(tmp_path):
    writer = RingWriter(str(tmp_path / "queue"), CAPACITY, body_bytes_max=1 << 20)
    reader = RingReader(str(tmp_path / "queue"))
    reader.read(1)
    yield writer, reader
    writer.close()
    reader.close()


def send(writer, *payloads):
    copy = writer.copy(0)
    for payload in payloads:
        copy.request(payload)


def payloads(records):
    return [record.payload for record in records]


def test_reading_is_bounded_but_always_gets_on(ends):
    writer, reader = ends
    send(writer, b"a" * 100, b"b" * 100, b"c" * 100)
    assert payloads(reader.read(1)) == [b"a" * 100]
    assert payloads(reader.read(200)) == [b"b" * 100, b"c" * 100]
    assert reader.read(1000) == []


def test_room_comes_back_only_by_release_and_only_of_what_was_read(ends):
    writer, reader = ends
    send(writer, b"a", b"b")
    first, second = reader.read(1000)
    assert reader.tail == 0
    reader.release(first.end)
    assert reader.tail == second.position
    reader.release(first.position)
    assert reader.tail == second.position, "never back"
    with pytest.raises(ValueError, match="not read"):
        reader.release(second.end + 8)


def test_a_new_reader_begins_at_the_tail_and_knows_what_was_acknowledged(ends, tmp_path):
    writer, reader = ends
    send(writer, b"a", b"b")
    first, _ = reader.read(1000)
    reader.release(first.end)
    reader.acknowledge(17)
    reader.acknowledge(5)
    reader.close()
    again = RingReader(str(tmp_path / "queue"))
    assert payloads(again.read(1000)) == [b"b"]
    assert again.acknowledged == 17
    again.close()


def test_the_oldest_unread_time_is_that_of_the_next_record(ends):
    writer, reader = ends
    assert reader.unread_us() is None
    send(writer, b"a", b"b")
    unread_us = reader.unread_us()
    first, _ = reader.read(1000)
    assert unread_us == first.time_us
    assert reader.unread_us() is None


def test_a_header_that_is_late_is_looked_at_again(ends, monkeypatch):
    """As on a CPU that shows the new head before the record."""
    writer, reader = ends
    at = DATA_OFFSET + writer._head
    send(writer, b"late")
    whole = writer._memory[at : at + 16]
    writer._memory[at : at + 16] = bytes(16)
    looks = []

    def arrives(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            writer._memory[at : at + 16] = whole

    monkeypatch.setattr("sidecar.wire.ringreader.time.sleep", arrives)
    assert payloads(reader.read(1000)) == [b"late"]
    assert len(looks) == 3
    assert reader.status.get(Slot.QUEUE_CORRUPTIONS) == 0


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_is_skipped_counted_and_never_stops_the_reader(tmp_path_factory, data):
    path = str(tmp_path_factory.mktemp("queue") / "queue")
    writer = RingWriter(path, CAPACITY, body_bytes_max=1 << 20)
    reader = RingReader(path)
    try:
        sent = [
            bytes([n]) * size
            for n, size in enumerate(data.draw(st.lists(st.integers(1, 500), min_size=1, max_size=20)))
        ]
        send(writer, *sent)
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, writer._head - 1))
            writer._memory[DATA_OFFSET + at] ^= data.draw(st.integers(1, 255))
        records = reader.read(1 << 20)
        gaps = [record for record in records if record.kind == Kind.GAP]
        assert len(gaps) == reader.status.get(Slot.QUEUE_CORRUPTIONS) <= 1
        if gaps:
            lost = unpack_gap(gaps[0].payload)[1]
            assert gaps == records[-1:]
            assert gaps[0].sequence == 0
            assert lost == reader.status.get(Slot.QUEUE_BYTES_SKIPPED) == writer._head - gaps[0].position
        send(writer, b"afterwards")
        assert payloads(reader.read(1 << 20)) == [b"afterwards"]
    finally:
        reader.close()
        writer.close()


def test_a_replay_skips_what_was_skipped_and_no_more(ends, tmp_path):
    writer, reader = ends
    at = DATA_OFFSET + writer._head
    send(writer, b"damaged", b"behind it")
    writer._memory[at + 20] ^= 1
    (gap,) = reader.read(1000)
    send(writer, b"later")
    assert payloads(reader.read(1000)) == [b"later"]
    reader.close()
    again = RingReader(str(tmp_path / "queue"))
    start, same, later = again.read(1000)
    assert (start.kind, same, later.payload) == (Kind.START, gap, b"later")
    assert again.status.get(Slot.QUEUE_CORRUPTIONS) == 1
    again.close()

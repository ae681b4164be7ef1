from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.wire import ringfile
from sidecar.wire.records import Kind
from sidecar.wire.ring import RingError, RingReader, RingWriter
from sidecar.wire.ringfile import DATA_OFFSET, S_HEAD, RoleLock, map_existing

KIB = 1024


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "queue")


def open_writer(path, capacity=64 * KIB, **options):
    return RingWriter(path, capacity, body_bytes_max=1000, **options)


def use(path, capacity=64 * KIB, *, drain):
    """A writer's life; with `drain` a reader reads what it wrote."""
    writer = open_writer(path, capacity)
    try:
        writer.copy(0).request(b"traffic", 7)
        if drain:
            reader = RingReader(path)
            reader.read(1 << 20)
            reader.release(reader.position)
            reader.close()
        return writer.producer, writer._next, writer.capacity, writer.notices
    finally:
        writer.close()


def test_the_file_is_private_and_fully_reserved(path):
    writer = open_writer(path, 100_000)
    found = Path(path).stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_size == DATA_OFFSET + writer.capacity
    assert found.st_blocks * 512 >= found.st_size
    assert writer.capacity == 98_304, "whole pages"
    assert writer.notices == []
    assert len(bytes.fromhex(writer.producer)) == 16
    writer.close()


def test_two_queues_are_two_producers(tmp_path):
    assert use(str(tmp_path / "a"), drain=False)[0] != use(str(tmp_path / "b"), drain=False)[0]


def test_a_second_writer_is_told_what_to_do(path):
    writer = open_writer(path)
    with pytest.raises(RingError, match="SIDECAR_DATA_DIR"):
        open_writer(path)
    writer.close()
    open_writer(path).close()


HOLDER = """
import sys, time
from sidecar.wire.ring import RingReader
reader = RingReader(sys.argv[1])
print("reading", flush=True)
sys.stdin.read()
"""


def test_a_reader_waits_for_the_former_one_to_die(path):
    writer = open_writer(path)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"reading\n"
    with pytest.raises(RingError, match="has a reader already"):
        RingReader(path)
    holder.kill()
    reader = RingReader(path, timeout_s=60)
    assert holder.wait(60) == -9
    assert [record.kind for record in reader.read(1000)] == [Kind.START]
    reader.close()
    writer.close()
    holder.stdin.close()
    holder.stdout.close()


def test_a_reader_without_a_queue_says_who_makes_it(path):
    with pytest.raises(RingError, match="the proxy makes it"):
        RingReader(path)
    writer = open_writer(path)
    RingReader(path).close()
    writer.close()


def test_a_directory_that_is_not_there_says_so(tmp_path):
    with pytest.raises(RingError, match=r"cannot use .*missing"):
        open_writer(str(tmp_path / "missing" / "queue"))


def test_too_little_memory_says_how_much_is_needed_and_leaves_nothing(path, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(RingError, match=rf"needs {DATA_OFFSET + 64 * KIB} bytes.*SIDECAR_QUEUE_BYTES.*/dev/shm"):
            open_writer(path)
    assert [p.name for p in tmp_path.iterdir()] == ["queue.writer.lock"]
    open_writer(path).close()


def test_a_file_larger_than_any_disk_is_refused_by_the_kernel_itself(path):
    with pytest.raises(RingError, match="the queue needs"):
        open_writer(path, 1 << 50)


@pytest.mark.parametrize(
    "content",
    [b"", b"short", b"\xff" * (DATA_OFFSET + 64 * KIB), bytes(DATA_OFFSET + 64 * KIB)],
    ids=["empty", "short", "other magic", "zeros"],
)
def test_what_is_no_queue_is_moved_aside_and_kept(path, tmp_path, content):
    (tmp_path / "queue").write_bytes(content)
    writer = open_writer(path)
    (aside,) = tmp_path.glob("queue.unreadable-*")
    assert aside.read_bytes() == content
    assert str(aside) in writer.notices[0]
    writer.close()


@pytest.mark.parametrize("spoil", ["version", "size", "place"])
def test_a_queue_that_cannot_be_trusted_is_moved_aside(path, tmp_path, spoil):
    producer, *_ = use(path, drain=False)
    with Path(path).open("r+b") as file:
        if spoil == "size":
            file.truncate(DATA_OFFSET + 64 * KIB - 4096)
        else:
            file.seek(8 if spoil == "version" else 8 * S_HEAD)
            file.write((1 << 40).to_bytes(8, "little"))
    again, sequence, _, notices = use(path, drain=False)
    assert again != producer
    assert sequence < 2 * 65_540
    assert len(notices) == 1
    assert len(list(tmp_path.glob("queue.unreadable-*"))) == 1


def test_a_link_is_not_followed(path, tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"precious" * 10_000)
    Path(path).symlink_to(tmp_path / "elsewhere")
    writer = open_writer(path)
    assert (tmp_path / "elsewhere").read_bytes() == b"precious" * 10_000
    writer.close()


def test_a_drained_queue_takes_a_new_size_and_keeps_its_identity(path):
    producer, sequence, *_ = use(path, drain=True)
    again, later, capacity, notices = use(path, 128 * KIB, drain=True)
    assert (again, capacity, notices) == (producer, 128 * KIB, [])
    assert later > sequence
    smaller, latest, capacity, _ = use(path, 64 * KIB, drain=True)
    assert (smaller, capacity) == (producer, 64 * KIB)
    assert latest > later


def test_a_queue_with_unread_records_keeps_its_size_and_says_so(path):
    producer, *_ = use(path, drain=False)
    again, _, capacity, notices = use(path, 128 * KIB, drain=True)
    assert (again, capacity) == (producer, 64 * KIB)
    assert "keeps its 65536 bytes instead of 131072" in notices[0]


def test_a_queue_that_is_being_read_keeps_its_size(path):
    use(path, drain=True)
    reader = RingReader(path)
    writer = open_writer(path, 128 * KIB, reader_wait_s=0.05)
    assert writer.capacity == 64 * KIB
    assert [record.kind for record in reader.read(1000)] == [Kind.START], "both still use one file"
    reader.close()
    writer.close()


def test_an_interrupted_creation_leaves_no_queue(path, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ringfile, "_mapped", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_writer(path)
    assert not (tmp_path / "queue").exists()
    assert map_existing(path) is None
    open_writer(path).close()


def test_locks_are_private_and_not_inherited(path):
    lock = RoleLock(path, "reader")
    assert stat.S_IMODE(Path(path + ".reader.lock").stat().st_mode) == 0o600
    assert not os.get_inheritable(lock._fd)
    lock.close()
    lock.close()

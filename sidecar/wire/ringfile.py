"""The queue's file: its layout, how it is made, found again, and kept to one writer and one reader.

    page 0    header, 64-bit slots: magic, version, capacity, producer; then, each on a cache line of its own, what the
              writer stores (head, next sequence, last time) and what the reader stores (tail, released sequence)
    page 1    the status page (`wire/status.py`)
    then      `capacity` bytes of records

Positions (head, tail) count bytes since the queue was made and never wrap; a record lies at `position % capacity`.

A file appears under its name only when it is whole (made under another name, then renamed). Its bytes are reserved with
`posix_fallocate`: on a full tmpfs, a store to a page that was never reserved kills the process with SIGBUS. A file that
is not a queue of this layout is moved aside, never overwritten, since it may hold traffic of another version.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidecar.wire.status import PROXY_GAUGES, STATUS_BYTES, StatusPage

MAGIC: Final = int.from_bytes(b"OUTCOMEQ", "little")
VERSION: Final = 1
HEADER_PAGE_BYTES: Final = 4096
DATA_OFFSET: Final = HEADER_PAGE_BYTES + STATUS_BYTES
CAPACITY_MIN: Final = 64 * 1024
PRODUCER_BYTES: Final = 16

# Slots of page 0.
S_MAGIC, S_VERSION, S_CAPACITY, S_PRODUCER = 0, 1, 2, 3  # the producer takes two slots
S_HEAD, S_NEXT, S_TIME_US, S_LOST_RECORDS, S_LOST_BYTES = 16, 17, 18, 19, 20  # the writer's
S_TAIL, S_RELEASED, S_SKIP_FROM, S_SKIP_TO = 32, 33, 34, 35  # the reader's


class RingError(Exception):
    """The queue cannot be used; the message says what to change."""


@dataclass(slots=True)
class RingFile:
    """A mapped queue: `slots` is page 0 as 64-bit words, stored and loaded whole."""

    path: str
    memory: mmap.mmap
    slots: memoryview
    status: StatusPage
    capacity: int
    producer: str

    def close(self) -> None:
        """Unmap; the file stays."""
        self.status.close()
        self.slots.release()
        self.memory.close()


class RoleLock:
    """`flock` on a file beside the queue, one for the writer's role and one for the reader's; held until closed.

    The kernel lets go when the process dies, however it dies. The descriptor is not inherited by programs that the
    holder starts.
    """

    def __init__(self, path: str, role: str, *, timeout_s: float = 0.0) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(f"{path}.{role}.lock", flags, 0o600)
        except OSError as error:
            raise RingError(f"cannot use {Path(path).parent} for the queue: {error.strerror}") from error
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(self._fd)
                    raise RingError(
                        f"the queue {path} has a {role} already: another sidecar runs on the same data directory; "
                        "stop it, or give this one its own SIDECAR_DATA_DIR"
                    ) from None
                time.sleep(0.02)
            else:
                return

    def close(self) -> None:
        """Let the next one in."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def map_existing(path: str) -> RingFile | None:
    """Map the queue at `path`; None when there is no file; raises RingError when it is not a whole queue."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RingError(f"cannot open the queue {path}: {error.strerror}") from error
    try:
        header = os.pread(fd, struct.calcsize("<QQQ16s"), 0)
        size = os.fstat(fd).st_size
        if len(header) < struct.calcsize("<QQQ16s"):
            raise RingError(f"{path} is too short to be a queue")
        magic, version, capacity, producer = struct.unpack("<QQQ16s", header)
        if magic != MAGIC or version != VERSION:
            raise RingError(f"{path} is not a queue of layout version {VERSION}")
        if capacity < CAPACITY_MIN or capacity % 8 or size != DATA_OFFSET + capacity:
            raise RingError(f"{path} has {size} bytes, not those of its capacity of {capacity}")
        _reserve(fd, size, path)
        found = _mapped(fd, path, capacity, producer.hex())
        if not 0 <= found.slots[S_HEAD] - found.slots[S_TAIL] <= capacity:
            found.close()
            raise RingError(f"{path} has lost its place: its head and tail contradict each other")
        return found
    finally:
        os.close(fd)


def create(path: str, capacity: int, *, former: RingFile | None = None) -> RingFile:
    """Make an empty queue and put it in place of whatever is at `path`.

    From a `former`, drained queue the producer, the counters and the running numbers are taken over.
    """
    scratch = f"{path}.new"
    fd = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _reserve(fd, DATA_OFFSET + capacity, scratch)
        if former is None:
            slots = [0] * (HEADER_PAGE_BYTES // 8)
            slots[S_NEXT] = 1
            producer = os.urandom(PRODUCER_BYTES)
            page = bytes(STATUS_BYTES)
        else:
            slots = list(former.slots)
            producer = bytes.fromhex(former.producer)
            page = former.memory[HEADER_PAGE_BYTES:DATA_OFFSET]
            slots[S_SKIP_FROM] = slots[S_SKIP_TO] = 0
        slots[S_MAGIC], slots[S_VERSION], slots[S_CAPACITY] = MAGIC, VERSION, capacity
        slots[S_PRODUCER : S_PRODUCER + 2] = struct.unpack("<QQ", producer)
        os.pwrite(fd, struct.pack(f"<{len(slots)}Q", *slots) + page, 0)
        made = _mapped(fd, path, capacity, producer.hex())
        Path(scratch).rename(path)
    except BaseException:
        Path(scratch).unlink()
        raise
    finally:
        os.close(fd)
    return made


def open_for_writing(path: str, capacity: int, *, reader_wait_s: float) -> tuple[RingFile, list[str]]:
    """Find or make the queue. The caller holds the writer's lock. Also returns what an operator should be told.

    A file is only replaced while no reader has it (an observer that outlived its proxy is waited for): a reader of a
    replaced file would wait for ever for records that go to the new one.
    """
    capacity = max(capacity, CAPACITY_MIN) & ~4095
    notices: list[str] = []
    former: RingFile | None = None
    try:
        former = map_existing(path)
    except RingError as error:
        with _no_reader(path, reader_wait_s):
            aside = _move_aside(path)
        notices.append(f"{error}; it was moved to {aside} and a new, empty queue was made")
    if former is None:
        return create(path, capacity), notices
    if former.capacity != capacity:
        replaced = _resized(former, path, capacity, reader_wait_s)
        if replaced is not None:
            former.close()
            former = replaced
        else:
            notices.append(
                f"the queue {path} keeps its {former.capacity} bytes instead of {capacity}: it holds records that are "
                "not read yet; the new size is taken at a start that finds it empty"
            )
    for gauge in PROXY_GAUGES:
        former.status.set(gauge, 0)
    return former, notices


def _resized(former: RingFile, path: str, capacity: int, reader_wait_s: float) -> RingFile | None:
    """A queue of the new capacity in place of a drained one; None when it is not drained, or being read."""
    if former.slots[S_HEAD] != former.slots[S_TAIL]:
        return None
    try:
        with _no_reader(path, reader_wait_s):
            return create(path, capacity, former=former)
    except RingError:
        return None


class _no_reader:  # noqa: N801  used as a `with` statement only
    """Holds the reader's role for a moment, so that nobody maps a file that is about to be replaced."""

    def __init__(self, path: str, wait_s: float) -> None:
        self._lock = RoleLock(path, "reader", timeout_s=wait_s)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._lock.close()


def _reserve(fd: int, size: int, path: str) -> None:
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}:
            raise RingError(f"cannot reserve memory for the queue at {path}: {error.strerror}") from error
        stats = os.statvfs(Path(path).parent)
        free = stats.f_bavail * stats.f_frsize
        raise RingError(
            f"the queue needs {size} bytes in {Path(path).parent}, where {free} are free: set SIDECAR_QUEUE_BYTES "
            "lower, or give /dev/shm more (docker run --shm-size; in Kubernetes an emptyDir with medium: Memory)"
        ) from error


def _mapped(fd: int, path: str, capacity: int, producer: str) -> RingFile:
    # Populated at once: the first lap of the ring would otherwise pay a page fault for every four kilobytes.
    memory = mmap.mmap(fd, DATA_OFFSET + capacity, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    slots = memoryview(memory)[:HEADER_PAGE_BYTES].cast("Q")
    return RingFile(path, memory, slots, StatusPage(memory, HEADER_PAGE_BYTES), capacity, producer)


def _move_aside(path: str) -> str:
    """Rename what is not ours to read; the inode number makes the name unique."""
    aside = f"{path}.unreadable-{Path(path).lstat().st_ino}"
    Path(path).rename(aside)
    return aside

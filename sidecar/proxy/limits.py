"""Bounds on what clients may hold open: how many connections, and for how long without asking for or taking anything.

Theory of operation. No request costs a timer or a look at the clock. Once a tick a sweep walks over the connections and
looks at what each waits for. The first sweep that finds a connection waiting notes the time in it, the connection
forgets the note when a request's head is whole, and a later sweep that finds the note too old ends the connection. So a
timeout is late by up to one tick and never early. A client that trickles a head in byte by byte does not renew the
note; one that takes what was written, however slowly, does. The walk is made in slices, so that thousands of silent
clients do not hold up the one that talks.

A connection that serves a request, or carries another protocol, has no timeout at all: streams run for hours, and a
model may think for many minutes before its first byte. Only at the admin address (`admin`) is a request bounded too.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import Final, Protocol

from sidecar.wire.status import Slot, StatusPage

TICK_SECONDS: Final = 0.5
_SLICE: Final = 128  # connections looked at between two turns of the event loop
# Descriptors for listeners, the queue, children, logs, look-ups of names, and connections that are being refused.
_FILES_RESERVED: Final = 256
# A client that is told that there are too many connections holds one for a moment; past this share it is not told.
_CROWD_SHARE: Final = 8


class Awaits(IntEnum):
    """What a client's connection waits for, as far as a timeout is concerned."""

    NOTHING = 0  # a request is under way, or another protocol
    FIRST_BYTE = 1  # of the first request
    HEAD = 2  # the rest of a request's head
    REQUEST = 3  # the next request, if there is one
    TAKING = 4  # what was written has yet to be taken, if anything is left of it
    CLOSE = 5  # everything is said and taken; the client has yet to close
    BODY = 6  # the rest of a request's body
    ANSWER = 7  # an answer to begin


_COUNTED: Final = {
    Awaits.FIRST_BYTE: Slot.HEADER_TIMEOUTS,
    Awaits.HEAD: Slot.HEADER_TIMEOUTS,
    Awaits.REQUEST: Slot.IDLE_TIMEOUTS,
}


@dataclass(frozen=True, slots=True)
class Note:
    """What a sweep leaves in a connection: what it waits for, since when, and how much it had yet to take."""

    awaits: Awaits
    since: float
    unsent: int = 0

    def holds(self, awaits: Awaits, unsent: int) -> bool:
        """Whether it is still the same that it waits for, and it has taken nothing since."""
        begun = self.awaits is Awaits.FIRST_BYTE and awaits is Awaits.HEAD
        return (self.awaits is awaits or begun) and unsent >= self.unsent


class Waiting(Protocol):
    """What the sweep sees of a client's connection. It sets `waiting` to None when a request's head is whole."""

    waiting: Note | None

    def awaits(self) -> Awaits:
        """What it waits for; TAKING when it is for all that was written to be taken, whether that is so or not."""

    def unsent(self) -> int:
        """How many bytes of what was written have yet to be taken; asked of those that wait for just that."""

    def look(self) -> None:
        """Notice what nobody tells of."""

    def expire(self, awaits: Awaits, seconds: float) -> None:
        """It has waited for this longer than the seconds that there are for it: end it."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds. `header`: for a request's head, from its first byte on, or from the connection for the first one.
    `idle`: between two requests, and for a client to take anything of what was said to it. `close`: for a client that
    has taken everything, the end included, to close as well. At the admin address, `body`: for the body of a request,
    longer than the observer itself waits for one; `answer`: for an answer to a whole request to begin, which one that
    is stopped never does.
    """

    header: float = 30.0
    idle: float = 300.0
    close: float = 5.0
    body: float = 15.0
    answer: float = 5.0

    def overdue(self, connection: Waiting, now: float) -> Awaits:
        """What `connection` has waited for too long, NOTHING when it has not; notes since when it waits."""
        awaits = connection.awaits()
        if awaits is Awaits.NOTHING:
            connection.waiting = None
            return awaits
        since, note = now, connection.waiting
        unsent = connection.unsent() if awaits is Awaits.TAKING else 0
        if awaits is Awaits.TAKING and not unsent:
            awaits = Awaits.CLOSE
        if note is not None and note.holds(awaits, unsent):
            since = note.since
        connection.waiting = Note(awaits, since, unsent)
        return awaits if now - since > self.seconds(awaits) else Awaits.NOTHING

    def seconds(self, awaits: Awaits) -> float:
        """How long `awaits` may take."""
        if awaits in {Awaits.FIRST_BYTE, Awaits.HEAD}:
            return self.header
        bounds = {Awaits.CLOSE: self.close, Awaits.BODY: self.body, Awaits.ANSWER: self.answer}
        return bounds.get(awaits, self.idle)


def end_overdue(connection: Waiting, now: float, timeouts: Timeouts, status: StatusPage) -> None:
    """End `connection` if it has had its time, and count that."""
    awaits = timeouts.overdue(connection, now)
    if awaits is Awaits.NOTHING:
        return
    connection.waiting = None
    if awaits in _COUNTED:
        status.add(_COUNTED[awaits])
    connection.expire(awaits, timeouts.seconds(awaits))


async def sweep(connections: Sequence[Waiting], timeouts: Timeouts, status: StatusPage) -> None:
    """Look at each connection once, a slice at a time."""
    loop = asyncio.get_running_loop()
    for some in _slices(connections):
        now = loop.time()
        for connection in some:
            connection.look()
            end_overdue(connection, now, timeouts, status)
        await asyncio.sleep(0)


def _slices(connections: Iterable[Waiting]) -> Iterator[list[Waiting]]:
    left = iter(connections)
    while some := list(islice(left, _SLICE)):
        yield some


def crowd(connections_max: int) -> int:
    """The number of connections past which another one is cut without an answer."""
    return connections_max + max(16, connections_max // _CROWD_SHARE)


def raise_file_limit() -> int:
    """Raise the soft limit of open files as far as the hard one allows; returns what it is now.

    The soft limit of 1,024 that most systems give is for programs that use select().
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        most = 1 << 20 if hard == resource.RLIM_INFINITY else hard
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def files_wanted(connections_max: int, upstream_connections_max: int, origins: int) -> int:
    """How many open files these limits may come to: one for each connection on either side."""
    upstream = min(connections_max, upstream_connections_max * origins)
    return crowd(connections_max) + upstream + _FILES_RESERVED


def connections_allowed(connections_max: int, upstream_connections_max: int, origins: int, files: int) -> int:
    """The most connections from clients that `files` open files are enough for, `connections_max` at most.

    It is better to refuse a connection with an answer than to run out of files in the middle of other requests.
    """

    def wanted(connections: int) -> int:
        return files_wanted(connections, upstream_connections_max, origins)

    return max(1, bisect_right(range(1, connections_max + 1), files, key=wanted))

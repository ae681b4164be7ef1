"""How a connection is made to a name with several addresses, and which addresses a name still has.

Theory of operation. The addresses are tried in the resolver's order, families taking turns, each one begun a quarter
of a second after the former or as soon as one has failed; the first to answer wins and the others are dropped
(RFC 8305, "Happy Eyeballs"). So an address that swallows packets costs a quarter of a second and not the whole time to
connect. The number of addresses tried is bounded, and the caller bounds the time.

A resolver may give a part of a long list, another part each time; an address is gone only when several look-ups in a
row did not have it.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any, Final, TypeVar

STAGGER_SECONDS: Final = 0.25  # RFC 8305 section 5: the recommended delay
_ADDRESSES_MAX: Final = 8
_LOOKUPS: Final = 3

_T = TypeVar("_T")
SocketAddress = tuple[Any, ...]
Found = tuple[int, SocketAddress]  # address family, socket address


async def resolve(host: str, port: int) -> list[Found]:
    """The addresses of a name, in the resolver's order; raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(int(family), sockaddr) for family, _, _, _, sockaddr in found]


def in_turns(found: Iterable[Found]) -> list[Found]:
    """The families taking turns, beginning with the family that the resolver put first; at most eight addresses."""
    by_family: dict[int, list[Found]] = {}
    for entry in found:
        by_family.setdefault(entry[0], []).append(entry)
    turns = chain.from_iterable(zip_longest(*by_family.values()))
    return [entry for entry in turns if entry is not None][:_ADDRESSES_MAX]


async def first_of(attempts: Sequence[Callable[[], Awaitable[_T]]], stagger_seconds: float) -> tuple[_T, list[_T]]:
    """The first attempt that succeeds, and what others brought that succeeded in the same moment.

    Each attempt begins `stagger_seconds` after the one before it, or as soon as one has failed. Raises the first
    OSError when all fail. Cancelled, it cancels all.
    """
    failure: OSError | None = None
    left = deque(attempts)
    running: set[asyncio.Future[_T]] = set()
    try:
        while left or running:
            if left:
                running.add(asyncio.ensure_future(left.popleft()()))
            done, running = await asyncio.wait(
                running, timeout=stagger_seconds if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            won: list[_T] = []
            for attempt in done:
                error = attempt.exception()
                if error is None:
                    won.append(attempt.result())
                elif isinstance(error, OSError):
                    failure = failure or error
                else:
                    raise error
            if won:
                return won[0], won[1:]
    finally:
        for attempt in running:
            attempt.cancel()
    raise failure or OSError("the name has no address")


async def dial(host: str, port: int, protocol: asyncio.Protocol) -> None:
    """Connect a protocol to a name; raises OSError."""
    loop = asyncio.get_running_loop()
    found = await resolve(host, port)
    if len(found) == 1:
        where = found[0][1]
        await loop.create_connection(lambda: protocol, str(where[0]), int(where[1]))
        return
    sock = await connect(found)
    try:
        await loop.create_connection(lambda: protocol, sock=sock)
    except BaseException:
        sock.close()
        raise


async def connect(found: Iterable[Found], stagger_seconds: float = STAGGER_SECONDS) -> socket.socket:
    """A connected TCP socket to the first of these addresses that answers; raises OSError when none does."""
    attempts = [_attempt(family, where) for family, where in in_turns(found)]
    sock, others = await first_of(attempts, stagger_seconds)
    for other in others:
        other.close()
    return sock


def _attempt(family: int, where: SocketAddress) -> Callable[[], Awaitable[socket.socket]]:
    async def attempt() -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(sock, where)
        except BaseException:
            sock.close()
            raise
        return sock

    return attempt


class Addresses:
    """The addresses of one name over the last look-ups."""

    def __init__(self) -> None:
        self._lookups: deque[frozenset[str]] = deque(maxlen=_LOOKUPS)

    def found(self, addresses: Iterable[str]) -> None:
        """The result of a look-up; one that failed or found nothing says nothing."""
        some = frozenset(addresses)
        if some:
            self._lookups.append(some)

    def lack(self, address: str) -> bool:
        """Whether the name no longer leads to `address`."""
        lookups = self._lookups
        return len(lookups) == lookups.maxlen and not any(address in some for some in lookups)

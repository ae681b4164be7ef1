"""The pool: warm connections, its limit, whose turn it is, and names that lead elsewhere."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import uvloop

from sidecar.proxy import dialling
from sidecar.proxy.config import Upstream
from sidecar.proxy.upstream import Origin, UpstreamConnection, UpstreamError
from sidecar.wire.status import STATUS_BYTES, Slot, StatusPage


class Caller:
    """Asks for a connection and remembers what it got."""

    def __init__(self, origin: Origin, *, fresh: bool = False) -> None:
        self.got: UpstreamConnection | UpstreamError | None = None
        self.done = asyncio.Event()
        self.task = origin.connect(self, fresh=fresh)

    def connected(self, upstream: UpstreamConnection) -> None:
        upstream.client = self
        upstream.exchanges += 1
        self.got = upstream
        self.done.set()

    def connect_failed(self, error: UpstreamError) -> None:
        self.got = error
        self.done.set()

    def response_events(self, events) -> None:
        pass

    def response_whole(self, head, data) -> None:
        pass

    def upstream_ended(self) -> bool:
        return False

    def upstream_lost(self, error) -> None:
        pass

    async def connection(self) -> UpstreamConnection:
        async with asyncio.timeout(20):
            await self.done.wait()
        assert isinstance(self.got, UpstreamConnection), self.got
        return self.got

    async def error(self) -> UpstreamError:
        async with asyncio.timeout(20):
            await self.done.wait()
        assert isinstance(self.got, UpstreamError), self.got
        return self.got


class Place:
    """An origin process of sorts: accepts and keeps."""

    def __init__(self) -> None:
        self.status = StatusPage(bytearray(STATUS_BYTES))
        self.accepted: list[asyncio.StreamWriter] = []
        self.origins: list[Origin] = []

    async def start(self) -> None:
        async def keep(reader, writer):
            self.accepted.append(writer)
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()

        self.server = await asyncio.start_server(keep, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    def origin(self, host: str = "127.0.0.1", **options) -> Origin:
        origin = Origin(Upstream.parse(f"http://{host}:{self.port}"), self.status, **options)
        self.origins.append(origin)
        return origin

    async def close(self) -> None:
        for origin in self.origins:
            origin.close()
        self.server.close()
        await asyncio.sleep(0.02)


@pytest.fixture
async def place():
    place = Place()
    await place.start()
    yield place
    await place.close()


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_the_connection_used_before_is_preferred_and_else_the_last_one_released(place):
    origin = place.origin()
    first, second, third = [await Caller(origin).connection() for _ in range(3)]
    for connection in (first, second, third):
        origin.release(connection)
    assert origin.take(first) is first
    assert origin.take(first) is third
    assert origin.take(None) is second
    assert origin.take(None) is None


async def test_an_idle_connection_that_the_origin_ends_leaves_the_pool(place):
    origin = place.origin()
    ended, talking, kept = [await Caller(origin).connection() for _ in range(3)]
    await until(lambda: len(place.accepted) == 3)
    for connection in (kept, talking, ended):
        origin.release(connection)
    peers = {writer.get_extra_info("peername"): writer for writer in place.accepted}
    peers[ended.transport.get_extra_info("sockname")].close()
    peers[talking.transport.get_extra_info("sockname")].write(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    await until(lambda: place.status.get(Slot.UPSTREAM_CONNECTIONS) == 1)
    assert origin.take(ended) is kept
    assert origin.take(None) is None


async def test_at_the_limit_requests_wait_their_turn(place):
    origin = place.origin(connections_max=2)
    one, two = [await Caller(origin).connection() for _ in range(2)]
    third, fourth, fifth = (Caller(origin) for _ in range(3))
    await until(lambda: place.status.get(Slot.UPSTREAM_WAITS) == 3)
    origin.release(two)
    assert await third.connection() is two
    origin.discard(one)
    fresh = await fourth.connection()
    assert fresh not in {one, two}
    assert fifth.got is None
    origin.release(fresh)
    assert await fifth.connection() is fresh
    assert place.status.get(Slot.UPSTREAM_CONNECTS) == 3
    assert origin.take(None) is None


async def test_what_must_be_fresh_does_not_take_a_used_one(place):
    origin = place.origin(connections_max=1)
    used = await Caller(origin).connection()
    waiting = Caller(origin, fresh=True)
    await until(lambda: place.status.get(Slot.UPSTREAM_WAITS) == 1)
    origin.release(used)
    assert await waiting.connection() is not used


async def test_what_must_be_fresh_takes_the_place_of_one_that_nobody_uses(place):
    origin = place.origin(connections_max=1)
    idle = await Caller(origin).connection()
    origin.release(idle)
    assert await Caller(origin, fresh=True).connection() is not idle


async def test_room_goes_to_who_has_waited_longest_and_not_to_who_has_just_come(place):
    origin = place.origin(connections_max=1)
    used = await Caller(origin).connection()
    first = Caller(origin)
    await until(lambda: place.status.get(Slot.UPSTREAM_WAITS) == 1)
    newcomer = Caller(origin)  # runs before who has waited does
    used.client = None
    origin.forget(used)
    used.transport.abort()
    second = await first.connection()
    assert newcomer.got is None
    origin.release(second)
    assert await newcomer.connection() is second


async def test_what_must_be_fresh_has_its_turn_among_others(place):
    origin = place.origin(connections_max=1)
    used = await Caller(origin).connection()
    first, fresh, last = Caller(origin), Caller(origin, fresh=True), Caller(origin)
    await until(lambda: place.status.get(Slot.UPSTREAM_WAITS) == 3)
    origin.release(used)
    assert await first.connection() is used
    origin.release(used)
    latecomer = Caller(origin)
    made = await fresh.connection()
    assert made is not used
    assert last.got is latecomer.got is None
    for waiting in (last, latecomer):
        origin.release(made)
        assert await waiting.connection() is made
    assert place.status.get(Slot.UPSTREAM_CONNECTS) == 2


async def test_each_that_must_be_fresh_ends_one_connection_and_no_more(place):
    origin = place.origin(connections_max=3)
    kept, *used = [await Caller(origin).connection() for _ in range(3)]
    fresh = [Caller(origin, fresh=True) for _ in range(2)]
    await until(lambda: place.status.get(Slot.UPSTREAM_WAITS) == 2)
    for connection in (*used, kept):
        origin.release(connection)
    made = [await waiting.connection() for waiting in fresh]
    assert not {kept, *used} & set(made)
    assert origin.take(None) is kept
    assert place.status.get(Slot.UPSTREAM_CONNECTIONS) == 3


async def test_a_connection_that_ends_as_it_is_given_costs_nobody_the_turn(place):
    origin = place.origin(connections_max=1)
    used = await Caller(origin).connection()
    first, second = Caller(origin), Caller(origin)
    await until(lambda: place.status.get(Slot.UPSTREAM_WAITS) == 2)
    origin.release(used)
    origin.discard(used)  # as when its origin ends it in that moment
    made = await first.connection()
    assert made is not used
    assert second.got is None
    origin.release(made)
    assert await second.connection() is made


async def test_a_connection_that_is_just_there_counts_once(place):
    """A request that comes in the same turn of the event loop finds the room that is left."""
    origin = place.origin(connections_max=2)
    opened, callers = origin.opened, []

    def opened_and_asked_for(connection):
        opened(connection)
        if not callers:
            callers.append(Caller(origin))

    origin.opened = opened_and_asked_for
    first = await Caller(origin).connection()
    assert await callers[0].connection() is not first
    assert place.status.get(Slot.UPSTREAM_WAITS) == 0


async def test_a_connection_that_comes_free_as_another_is_asked_for_is_taken(place):
    """Its client saw none that was idle, and the task that makes one has not begun."""
    origin = place.origin(connections_max=1)
    used = await Caller(origin).connection()
    caller = Caller(origin)
    origin.release(used)
    assert await caller.connection() is used


async def leave_as_it_is_made(place: Place) -> None:
    origin = place.origin(connections_max=1)
    opened = origin.opened

    def opened_and_left(connection):
        opened(connection)
        leaving.task.cancel()

    origin.opened = opened_and_left
    leaving = Caller(origin)
    await until(leaving.task.done)
    assert leaving.got is None
    assert place.status.get(Slot.UPSTREAM_CONNECTIONS) == 0
    origin.opened = opened
    await Caller(origin).connection()
    assert place.status.get(Slot.UPSTREAM_CONNECTIONS) == 1


def test_a_connection_whose_client_leaves_as_it_is_made_is_not_counted():
    """On uvloop, which closes it without telling its protocol."""

    async def scene() -> None:
        place = Place()
        await place.start()
        try:
            await leave_as_it_is_made(place)
        finally:
            await place.close()

    uvloop.run(scene())


async def test_what_an_origin_says_behind_its_answer_is_dropped_and_its_connection_not_used_again(place):
    origin = place.origin()
    connection = await Caller(origin).connection()
    connection.scanner.resume(b"POST")
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    for _ in range(100):  # while the rest of the request is still on its way
        connection.data_received(b"x" * 10_000)
    assert connection.scanner.pending == 0
    origin.release(connection)
    assert origin.take(None) is None


async def test_waiting_is_bounded_by_the_time_to_connect(place):
    origin = place.origin(connections_max=1, connect_seconds=0.1)
    busy = await Caller(origin).connection()
    error = await Caller(origin).error()
    assert (error.status, error.code) == (503, "no-capacity")
    assert place.status.get(Slot.UPSTREAM_REFUSED) == 1
    assert place.status.get(Slot.UPSTREAM_FAILURES) == 0
    origin.release(busy)
    assert origin.take(None) is busy


@pytest.mark.parametrize("when", ["waiting", "given", "given room"])
async def test_a_turn_that_nobody_takes_any_more_is_the_next_ones(place, when):
    origin = place.origin(connections_max=1)
    used = await Caller(origin).connection()
    leaving, staying = Caller(origin), Caller(origin)
    await until(lambda: place.status.get(Slot.UPSTREAM_WAITS) == 2)
    if when == "given":
        origin.release(used)
        leaving.task.cancel()
    elif when == "given room":
        origin.discard(used)
        origin.forget(used)
        leaving.task.cancel()
    else:
        leaving.task.cancel()
        await asyncio.sleep(0)
        origin.release(used)
    assert (await staying.connection() is used) == (when != "given room")
    assert leaving.got is None


async def test_a_turn_that_leads_to_a_failure_is_the_next_ones(place, monkeypatch):
    origin = place.origin("localhost", connections_max=1)
    used = await Caller(origin).connection()
    unlucky, lucky = Caller(origin), Caller(origin)
    await until(lambda: place.status.get(Slot.UPSTREAM_WAITS) == 2)
    resolve, failed = dialling.resolve, []

    async def fail_once(host, port):
        if not failed:
            failed.append(host)
            raise OSError("no such name")
        return await resolve(host, port)

    monkeypatch.setattr(dialling, "resolve", fail_once)
    origin.discard(used)
    assert (await unlucky.error()).code == "unreachable"
    assert isinstance(await lucky.connection(), UpstreamConnection)


async def test_a_name_with_a_dead_address_first(place, monkeypatch):
    async def resolve(_host, port):
        return [(10, ("::1", port, 0, 0)), (2, ("127.0.0.1", port))]  # nobody listens on ::1

    monkeypatch.setattr(dialling, "resolve", resolve)
    connection = await Caller(place.origin("localhost")).connection()
    assert connection.transport.get_extra_info("peername")[0] == "127.0.0.1"


async def test_connections_to_an_address_that_dns_dropped_are_retired_when_idle(place, monkeypatch):
    answers = [["127.0.0.1"]]

    async def resolve(_host, port):
        if not answers[0]:
            raise OSError("the resolver is away")
        return [(2, (address, port)) for address in answers[0]]

    monkeypatch.setattr(dialling, "resolve", resolve)
    origin = place.origin("localhost")
    idle, busy = [await Caller(origin).connection() for _ in range(2)]
    origin.release(idle)
    for answers[0] in (["127.0.0.1"], [], [], [], ["127.0.0.2"], ["127.0.0.2"]):
        await origin.follow_name()
    assert place.status.get(Slot.UPSTREAM_RETIRED) == 0
    await origin.follow_name()
    await until(lambda: place.status.get(Slot.UPSTREAM_CONNECTIONS) == 1)
    assert place.status.get(Slot.UPSTREAM_RETIRED) == 2
    assert not busy.transport.is_closing()
    origin.release(busy)
    assert origin.take(None) is None
    await until(lambda: place.status.get(Slot.UPSTREAM_CONNECTIONS) == 0)

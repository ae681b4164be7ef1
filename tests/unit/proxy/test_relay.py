"""The relay in this process, with its copies recorded; what needs raw bytes on both ends is in tests/transparency."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl

import pytest

from sidecar.proxy.config import Upstream
from sidecar.proxy.limits import Awaits, Timeouts, sweep
from sidecar.proxy.relay import ClientConnection
from sidecar.proxy.route import Route
from sidecar.proxy.upstream import Origin
from sidecar.wire.framing import Limits
from sidecar.wire.message import read_response
from sidecar.wire.records import EndFlag
from sidecar.wire.status import STATUS_BYTES, Slot, StatusPage

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class RecordingCopy:
    def __init__(self, log: list[tuple[object, ...]]) -> None:
        self.log = log
        self.ended = False

    def request(self, data: bytes, head_bytes: int = 0) -> None:
        self.log.append(("request", data, head_bytes))

    def response(self, data: bytes, head_bytes: int = 0) -> None:
        self.log.append(("response", data, head_bytes))

    def last(self, data: bytes, head_bytes: int, flags: int) -> None:
        self.response(data, head_bytes)
        self.end(flags)
        self.ended = True

    def end(self, flags: int = 0) -> None:
        if not self.ended:
            self.log.append(("end", flags))


class Scene:
    """A relay listening on one port before an origin on another, both in this event loop."""

    def __init__(self) -> None:
        self.status = StatusPage(bytearray(STATUS_BYTES))
        self.copied: list[tuple[object, ...]] = []
        self.servers: list[asyncio.AbstractServer] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def origin(self, serve, path: str | None = None) -> str:
        async def serve_and_keep(reader, writer):
            self.writers.append(writer)
            await serve(reader, writer)

        if path:
            self.servers.append(await asyncio.start_unix_server(serve_and_keep, path))
            return f"unix:{path}"
        server = await asyncio.start_server(serve_and_keep, "127.0.0.1", 0)
        self.servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def relay(self, upstream: str, origin_options=None, **options) -> int:
        origin = Origin(Upstream.parse(upstream), self.status, **(origin_options or {}))
        options.setdefault("copy", lambda _listener: RecordingCopy(self.copied))
        self.route = Route(0, origin, self.status, **options)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: ClientConnection(self.route, loop), "127.0.0.1", 0)
        self.servers.append(server)
        return server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        for server in self.servers:
            server.close()
        self.route.abort()
        self.route.origin.close()
        for writer in self.writers:
            writer.close()
        await asyncio.sleep(0.02)  # the loop closes transports in its next rounds


@pytest.fixture
async def scene():
    scene = Scene()
    yield scene
    await scene.close()


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


async def answer_and_close(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(OK)
    writer.close()


async def never_answer(reader, writer):
    await reader.read()
    writer.close()


async def test_the_copy_comes_first_and_is_complete(scene):
    port = await scene.relay(await scene.origin(answer_and_close))
    request = GET.replace(b"Host", b"Connection: close\r\nHost")
    assert await ask(port, request) == OK
    assert scene.copied == [("request", request, len(request)), ("response", OK, len(OK) - 2), ("end", 0)]
    assert scene.status.get(Slot.REQUESTS) == 1
    assert scene.status.get(Slot.RESPONSES_2XX) == 1
    assert scene.status.get(Slot.EXCHANGES_OPEN) == 0
    assert scene.status.get(Slot.UPSTREAM_CONNECTS) == 1
    assert scene.status.get(Slot.BYTES_UP) == len(request)
    assert scene.status.get(Slot.BYTES_DOWN) == len(OK)


async def test_too_many_upstream_connections(scene):
    port = await scene.relay(await scene.origin(never_answer), {"connections_max": 1, "connect_seconds": 0.2})
    waiting = asyncio.create_task(ask(port, GET))
    while not scene.status.get(Slot.UPSTREAM_CONNECTS):
        await asyncio.sleep(0.01)
    answer = read_response(await ask(port, GET), method="GET", eof=True)
    assert (answer.status, answer.get("x-sidecar-error")) == (503, "no-capacity")
    waiting.cancel()
    assert scene.copied[-1] == ("end", EndFlag.ANSWERED_BY_SIDECAR)


async def test_an_origin_that_does_not_finish_its_handshake(scene):
    url = await scene.origin(never_answer)
    port = await scene.relay(url.replace("http:", "https:"), {"connect_seconds": 0.2})
    answer = read_response(await ask(port, GET), method="GET", eof=True)
    assert (answer.status, answer.get("x-sidecar-error")) == (504, "connect-timeout")
    assert scene.status.get(Slot.UPSTREAM_FAILURES) == 1


async def test_a_ca_file_that_is_none(scene, tmp_path):
    bad = tmp_path / "ca.pem"
    bad.write_text("not a certificate")
    with pytest.raises(ssl.SSLError):
        await scene.relay("https://localhost", {"ca_file": str(bad)})
    scene.route = Route(0, Origin(Upstream.parse("http://localhost"), scene.status), scene.status)


async def test_a_name_that_does_not_resolve(scene):
    port = await scene.relay("http://nowhere.invalid")
    answer = read_response(await ask(port, GET), method="GET", eof=True)
    assert (answer.status, answer.get("x-sidecar-error")) == (502, "unreachable")


async def test_the_admin_address_relays_to_a_unix_socket(scene, tmp_path):
    url = await scene.origin(answer_and_close, str(tmp_path / "observer.sock"))
    port = await scene.relay(url, answer_seconds=5.0)
    assert await ask(port, GET.replace(b"Host", b"Connection: close\r\nHost")) == OK


@pytest.mark.parametrize("observer", ["absent", "stopped", "dying"])
async def test_the_admin_address_without_an_observer(scene, tmp_path, observer):
    path = str(tmp_path / "observer.sock")

    async def die(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    if observer != "absent":
        await scene.origin(never_answer if observer == "stopped" else die, path)
    port = await scene.relay(f"unix:{path}", answer_seconds=0.2)
    answer = read_response(await ask(port, GET), method="GET", eof=True)
    assert (answer.status, answer.get("x-sidecar-error")) == (503, "no-answer")
    assert "observer" in json.loads(answer.body)["error"]["message"]


async def test_the_observer_has_its_time_from_where_the_request_is_complete(scene, tmp_path):
    """A body that comes slowly is the observer's to give up on."""

    async def give_up(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.6):
                await reader.readexactly(9)
        writer.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    port = await scene.relay(await scene.origin(give_up, str(tmp_path / "observer.sock")), answer_seconds=0.2)
    answer = await ask(port, b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nslow")
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_an_observer_that_stops_taking_a_body_has_its_time(scene, tmp_path):
    async def stop(reader, writer):
        writer.transport.pause_reading()

    port = await scene.relay(await scene.origin(stop, str(tmp_path / "observer.sock")), answer_seconds=0.2)
    answer = await ask(port, b"POST / HTTP/1.1\r\nContent-Length: 900000000\r\n\r\n" + bytes(8_000_000))
    assert answer.startswith(b"HTTP/1.1 503 ")


async def test_an_observer_that_takes_a_body_slowly_has_time(scene, tmp_path):
    body = bytes(4_000_000)

    async def take_slowly(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        left = len(body)
        while left:
            left -= len(await reader.readexactly(min(left, 500_000)))
            await asyncio.sleep(0.15)  # in all longer than the time for an answer
        writer.write(OK)
        writer.close()

    port = await scene.relay(await scene.origin(take_slowly, str(tmp_path / "observer.sock")), answer_seconds=1.0)
    head = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = await ask(port, head + body)
    assert answer == OK


async def test_local_answers_take_their_turn_in_a_pipeline(scene):
    def local(head):
        return b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + head.target[-1:]

    port = await scene.relay("http://127.0.0.1:9", local=local)
    requests = b"".join(b"POST /%d HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc" % number for number in range(9))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(requests)
    for number in range(9):
        assert (await reader.readexactly(39))[-1:] == b"%d" % number
    writer.close()
    assert scene.copied == []


async def test_draining_closes_idle_connections_and_lets_others_finish(scene):
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        begun.set()
        await go_on.wait()
        writer.write(OK)

    port = await scene.relay(await scene.origin(slow))
    idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", port)
    busy = asyncio.create_task(ask(port, GET))
    await begun.wait()
    scene.route.drain()
    assert await idle_reader.read() == b""
    idle_writer.close()
    assert not busy.done()
    go_on.set()
    assert await busy == OK
    async with asyncio.timeout(20):
        await scene.route.drained()


async def test_idle_connections_are_closed_in_time(scene):
    port = await scene.relay(await scene.origin(keep_answering), {"idle_seconds": 50.0})
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET)
    await reader.readexactly(len(OK))
    origin = scene.route.origin
    now = asyncio.get_running_loop().time()
    origin.close_idle(now + 40)
    connection = origin.take(None)
    assert connection is not None
    origin.release(connection)
    origin.close_idle(now + 60)
    assert origin.take(None) is None
    writer.close()


async def keep_answering(reader, writer):
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


class Transport(asyncio.Transport):
    """Keeps what is written, and whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reading = True

    def write(self, data) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def set_write_buffer_limits(self, high=None, low=None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 1

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Local:
    """A connection on which everything is answered here: with the last byte of the target."""

    def __init__(self) -> None:
        status = StatusPage(bytearray(STATUS_BYTES))
        origin = Origin(Upstream.parse("http://origin.example"), status)
        self.transport = Transport()
        limits = Limits(head_bytes_max=1 << 20)
        route = Route(0, origin, status, local=lambda head: head.target[-1:], limits=limits)
        self.connection = ClientConnection(route, asyncio.get_running_loop())
        self.connection.connection_made(self.transport)


async def turns(count: int = 50) -> None:
    """Of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_no_request_is_begun_while_the_answers_to_the_last_ones_are_not_taken():
    local = Local()
    connection, transport = local.connection, local.transport
    requests = b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(1, 10))
    connection.pause_writing()
    connection.data_received(requests[: len(requests) // 2])
    await turns()
    assert transport.written == b"1"  # it had arrived at its turn
    connection.data_received(requests[len(requests) // 2 :])
    await turns()
    assert transport.written == b"1"
    assert connection.awaits() is Awaits.TAKING
    connection.resume_writing()
    await turns()
    assert transport.written == b"123456789"
    connection.data_received(b"GET /0 HTTP/1.1\r\n\r\n")
    assert transport.written.endswith(b"0")


async def test_what_waits_behind_answers_that_are_not_taken_is_bounded():
    local = Local()
    connection, transport = local.connection, local.transport
    connection.pause_writing()
    request = b"GET /x HTTP/1.1\r\nX: " + b"x" * 1000 + b"\r\n\r\n"
    sent = 0
    while transport.reading:
        connection.data_received(request)
        await turns(2)
        sent += 1
        assert sent < 100
    connection.data_received(request * 100)  # the last that the kernel had handed over
    sent += 100
    connection.resume_writing()
    connection.pause_writing()
    await turns()
    assert not transport.reading
    connection.resume_writing()
    await turns(10)
    assert b"xx" in transport.written
    assert not transport.reading  # each answer makes room for a request, not for a chunk of them
    await turns(500)
    assert transport.reading
    assert transport.written == b"x" * sent


async def test_a_large_head_that_was_held_back_comes_to_its_end():
    """It fills what may wait, and only more bytes can complete it."""
    local = Local()
    connection, transport = local.connection, local.transport
    connection.pause_writing()
    connection.data_received(b"GET /1 HTTP/1.1\r\n\r\n")
    connection.data_received(b"GET /2 HTTP/1.1\r\nX: " + b"x" * 65_536)
    assert not transport.reading
    connection.resume_writing()
    await turns()
    assert transport.reading
    connection.data_received(b"\r\n\r\n")
    assert transport.written == b"12"


async def test_a_client_that_does_not_close_is_shown_out(scene):
    """It gets the end at once, and the connection is not kept for it."""
    port = await scene.relay(await scene.origin(answer_and_close))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET.replace(b"Host", b"Connection: close\r\nHost"))
    async with asyncio.timeout(20):
        assert await reader.read() == OK
        assert scene.status.get(Slot.CONNECTIONS_OPEN) == 1
        while scene.status.get(Slot.CONNECTIONS_OPEN):
            await sweep(list(scene.route.connections), Timeouts(close=0.0), scene.status)
            await asyncio.sleep(0.01)
    writer.close()

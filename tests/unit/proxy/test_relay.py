"""The relay in this process, with its copies recorded; what needs raw bytes on both ends is in tests/transparency."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from relays import GET, OK, Scene, answer_and_close, ask, never_answer

from sidecar.proxy.config import Upstream
from sidecar.proxy.limits import Awaits, Timeouts, sweep
from sidecar.proxy.relay import ClientConnection
from sidecar.proxy.route import Route
from sidecar.proxy.upstream import Origin
from sidecar.wire.framing import Limits
from sidecar.wire.message import read_response
from sidecar.wire.records import EndFlag
from sidecar.wire.status import STATUS_BYTES, Slot, StatusPage


@pytest.fixture
async def scene():
    scene = Scene()
    yield scene
    await scene.close()


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

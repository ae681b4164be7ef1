"""The relay in this process, with its copies recorded; what needs raw bytes on both ends is in tests/transparency."""

from __future__ import annotations

import asyncio
import json
import ssl

import pytest

from sidecar.proxy.config import Upstream
from sidecar.proxy.relay import ClientConnection
from sidecar.proxy.route import Route
from sidecar.proxy.upstream import Origin
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

"""The admin address before an observer that is there, away or stopped, and clients that do not send what they began."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from relays import GET, OK, Scene, answer_and_close, ask, never_answer
from transports import Transport

from sidecar.proxy.admin import AdminConnection
from sidecar.proxy.config import Upstream
from sidecar.proxy.limits import Awaits, Timeouts
from sidecar.proxy.route import Route
from sidecar.proxy.upstream import Origin, UpstreamConnection
from sidecar.wire.message import read_response
from sidecar.wire.status import STATUS_BYTES, StatusPage

POST = b"POST /v1/signals HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"


@pytest.fixture
async def scene():
    scene = Scene()
    yield scene
    await scene.close()


@pytest.fixture
def admin(scene, tmp_path):
    """Opens the admin address before such an observer (None: there is none), and returns its port."""

    async def opened(observer, *, connections_max: int = 256, **timeouts) -> int:
        path = str(tmp_path / "observer.sock")
        if observer is not None:
            await scene.origin(observer, path)
        options = {"counted": False, "connections_max": connections_max}
        port = await scene.relay(f"unix:{path}", kind=AdminConnection, **options)
        scene.sweep(Timeouts(**timeouts))
        return port

    return opened


async def test_the_admin_address_relays_to_a_unix_socket(admin):
    port = await admin(answer_and_close)
    assert await ask(port, GET.replace(b"Host", b"Connection: close\r\nHost")) == OK


@pytest.mark.parametrize("observer", ["absent", "stopped", "dying"])
async def test_the_admin_address_without_an_observer(admin, observer):
    async def die(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    port = await admin({"absent": None, "stopped": never_answer, "dying": die}[observer], answer=0.2)
    answer = read_response(await ask(port, GET), method="GET", eof=True)
    assert (answer.status, answer.get("x-sidecar-error")) == (503, "no-answer")
    assert "observer" in json.loads(answer.body)["error"]["message"]


async def test_the_observer_has_its_time_from_where_the_request_is_complete(admin):
    """A body that comes slowly is first the observer's to give up on."""

    async def give_up(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.6):
                await reader.readexactly(9)
        writer.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    port = await admin(give_up, answer=0.2)
    answer = await ask(port, b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nslow")
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_an_observer_that_stops_taking_a_body_has_its_time(admin):
    async def stop(reader, writer):
        writer.transport.pause_reading()

    port = await admin(stop, body=0.2)
    answer = await ask(port, b"POST / HTTP/1.1\r\nContent-Length: 900000000\r\n\r\n" + bytes(8_000_000))
    assert answer.startswith(b"HTTP/1.1 503 ")


async def test_an_observer_that_takes_a_body_slowly_has_time(admin):
    body = bytes(4_000_000)

    async def take_slowly(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        left = len(body)
        while left:
            left -= len(await reader.readexactly(min(left, 500_000)))
            await asyncio.sleep(0.15)  # in all longer than the time for an answer
        writer.write(OK)
        writer.close()

    port = await admin(take_slowly, answer=1.0)
    head = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = await ask(port, head + body)
    assert answer == OK


async def test_a_body_that_does_not_come_is_answered_and_gives_its_place_to_others(admin, scene):
    """Whatever the observer does: it would wait for ever for the body of a signal."""
    port = await admin(never_answer, connections_max=2, body=0.3)
    answers = await asyncio.gather(*(ask(port, POST + b"1") for _ in range(2)))
    for answer in (read_response(data, method="POST", eof=True) for data in answers):
        assert (answer.status, answer.get("x-sidecar-error")) == (408, "body-timeout")
        assert "0.3 s" in json.loads(answer.body)["error"]["message"]
    async with asyncio.timeout(20):
        while scene.route.connections:
            await asyncio.sleep(0.01)


async def test_a_body_that_trickles_in_does_not_renew_its_time(admin):
    port = await admin(never_answer, body=0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(POST.replace(b"10", b"1000000"))
    answer = asyncio.create_task(reader.read())
    async with asyncio.timeout(20):
        while not answer.done():
            writer.write(b"1")
            await asyncio.sleep(0.02)
    assert (await answer).startswith(b"HTTP/1.1 408 ")
    writer.close()


@pytest.mark.parametrize("observer", ["whole", "half"])
async def test_the_rest_of_a_body_that_is_answered_already_is_not_waited_for(admin, observer):
    said = OK if observer == "whole" else OK[:-1]

    async def answer_early(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await reader.read()
        writer.close()

    port = await admin(answer_early, body=0.2, close=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(POST)
    async with asyncio.timeout(20):
        assert await reader.read() == said
    writer.close()


async def test_an_answer_that_is_still_read_then_arrives_whole():
    """The end stands behind it, as behind any last answer."""
    status = StatusPage(bytearray(STATUS_BYTES))
    origin = Origin(Upstream.parse("unix:/nowhere"), status)
    near, far = Transport(), Transport()
    upstream = UpstreamConnection(origin)
    upstream.connection_made(far)
    origin.release(upstream)
    client = AdminConnection(Route(0, origin, status), asyncio.get_running_loop())
    client.connection_made(near)
    client.data_received(POST)
    upstream.data_received(OK)
    near.left = 3
    assert client.awaits() is Awaits.BODY
    client.expire(Awaits.BODY, 15.0)
    assert (near.written, near.ends, far.ends) == (OK, [], ["abort"])
    assert client.awaits() is Awaits.TAKING


@pytest.mark.parametrize(("body", "status"), [(b"", 408), (b"0123456789", 503)])
async def test_100_continue_is_no_answer_yet(admin, body, status):
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"

    async def stop_behind(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(interim)
        await reader.read()
        writer.close()

    port = await admin(stop_behind, body=0.3, answer=0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(POST.replace(b"Host", b"Expect: 100-continue\r\nHost"))
    async with asyncio.timeout(20):
        assert await reader.readexactly(len(interim)) == interim
        writer.write(body)
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    writer.close()

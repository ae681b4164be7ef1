"""A relay in this process, listening on one port before an origin on another, with its copies recorded."""

from __future__ import annotations

import asyncio

from sidecar.proxy.config import Upstream
from sidecar.proxy.limits import Timeouts, sweep
from sidecar.proxy.relay import ClientConnection
from sidecar.proxy.route import Route
from sidecar.proxy.upstream import Origin
from sidecar.wire.status import STATUS_BYTES, StatusPage

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
        self.sweeping: asyncio.Task[None] | None = None

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

    async def relay(self, upstream: str, origin_options=None, *, kind=ClientConnection, **options) -> int:
        origin = Origin(Upstream.parse(upstream), self.status, **(origin_options or {}))
        options.setdefault("copy", lambda _listener: RecordingCopy(self.copied))
        self.route = Route(0, origin, self.status, **options)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: kind(self.route, loop), "127.0.0.1", 0)
        self.servers.append(server)
        return server.sockets[0].getsockname()[1]

    def sweep(self, timeouts: Timeouts) -> None:
        """From here on, every few milliseconds."""

        async def sweep_on() -> None:
            while True:
                await sweep(list(self.route.connections), timeouts, self.status)
                await asyncio.sleep(0.01)

        self.sweeping = asyncio.create_task(sweep_on())

    async def close(self) -> None:
        if self.sweeping is not None:
            self.sweeping.cancel()
        for server in self.servers:
            server.close()
        self.route.abort()
        self.route.origin.close()
        for writer in self.writers:
            writer.close()
        await asyncio.sleep(0.02)  # the loop closes transports in its next rounds


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

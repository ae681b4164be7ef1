"""What one writes first: a streaming reverse proxy in aiohttp with a copy on a bounded queue.

A peer, not a straw man: one kept session, nothing logged, bodies streamed both ways, and on uvloop when asked.
`python -m bench.aiohttp_proxy URL asyncio|uvloop` prints its port.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web

_HOP_BY_HOP = frozenset(["connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "host"])


class Proxy:
    """Forwards to `upstream` and copies what passes."""

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self._upstream = upstream
        self._session = session
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(maxsize=10_000)

    async def drain(self) -> None:
        """Stand in for an observer."""
        while True:
            await self._queue.get()

    def _copy(self, data: bytes) -> None:
        if not self._queue.full():
            self._queue.put_nowait(data)

    async def _body(self, request: web.Request) -> AsyncIterator[bytes]:
        async for chunk in request.content.iter_any():
            self._copy(chunk)
            yield chunk

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One exchange."""
        fields = [(name, value) for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP]
        self._copy(request.raw_path.encode())
        async with self._session.request(
            request.method,
            self._upstream + request.raw_path,
            headers=fields,
            data=self._body(request) if request.can_read_body else None,
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    response.headers.add(name, value)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                self._copy(chunk)
                await response.write(chunk)
            await response.write_eof()
            return response


async def _serve(upstream: str) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        proxy = Proxy(upstream, session)
        draining = asyncio.get_running_loop().create_task(proxy.drain())
        application = web.Application(client_max_size=0)
        application.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await draining


if __name__ == "__main__":
    run = uvloop.run if sys.argv[2] == "uvloop" else asyncio.run
    run(_serve(sys.argv[1]))

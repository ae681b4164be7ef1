"""An origin that SDKs talk to: it answers from a script, or by a function, and records both directions' bytes."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson

from sidecar.observer.apis.call import Call
from sidecar.observer.apis.registry import recognise
from sidecar.observer.exchange import Exchange
from sidecar.observer.observation import Observation
from sidecar.observer.observe import Observing
from sidecar.observer.reader import RawExchange
from sidecar.policy.loading import builtin_plan
from sidecar.wire.message import Message, read_request
from sidecar.wire.records import EndFlag

HASH_KEY = b"k" * 32

Answer = Callable[[Message], bytes]


class Origin:
    """Answers each request with the next of its script, the last one over and over; `exchanges` are the raw bytes."""

    def __init__(self, *script: Answer) -> None:
        self._script = list(script)
        self.exchanges: list[tuple[bytes, bytes]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = b""
        try:
            while data := await reader.read(65_536):
                received += data
                request = read_request(received)
                if not request.complete:
                    continue
                answer = self._script.pop(0) if len(self._script) > 1 else self._script[0]
                response = answer(request)
                self.exchanges.append((received, response))
                received = b""
                for line in response.splitlines(keepends=True):  # in many writes, as servers stream
                    writer.write(line)
                    await writer.drain()
        except ConnectionError:
            pass  # a client that has what it wanted
        finally:
            writer.close()

    def raw(self, number: int) -> RawExchange:
        """An exchange as the queue hands it on."""
        request, response = self.exchanges[number]
        return RawExchange("q1", number + 1, number + 1, 0, 1_000, 2_000, request, response, EndFlag(0), True)

    def observations(self) -> list[Observation]:
        observing = Observing("acme", HASH_KEY, "", "header:x-customer-id", False, lambda _name: None)
        seen = [observing.observe(self.raw(number), builtin_plan()) for number in range(len(self.exchanges))]
        return [observation for observation in seen if observation is not None]

    def calls(self) -> list[Call]:
        calls = []
        for number in range(len(self.exchanges)):
            exchange = Exchange(self.raw(number))
            api = recognise(exchange)
            assert api is not None, exchange.path
            calls.append(api.read(exchange))
        return calls


@asynccontextmanager
async def origin(*script: Answer) -> AsyncIterator[Origin]:
    made = Origin(*script)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    made.url = f"http://{host}:{port}"
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()


def whole(body: Any, status: int = 200, extra: str = "") -> Answer:
    """One JSON body, gzipped for clients that take it."""

    def answer(request: Message) -> bytes:
        raw = b"" if body is None else orjson.dumps(body)
        coding = ""
        if raw and "gzip" in (request.get("accept-encoding") or ""):
            raw, coding = gzip.compress(raw), "Content-Encoding: gzip\r\n"
        head = f"HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\n{coding}{extra}"
        return f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw

    return answer


def chunked(pieces: list[bytes], media_type: str, extra: str = "") -> Answer:
    """A streamed body, a chunk for each piece."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\n{extra}Transfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return lambda _request: head.encode() + chunks + b"0\r\n\r\n"


def stream(*events: tuple[str | None, dict[str, Any] | str]) -> Answer:
    """Server-sent events, a chunk for each."""
    pieces = []
    for name, data in events:
        raw = data.encode() if isinstance(data, str) else orjson.dumps(data)
        pieces.append((f"event: {name}\n".encode() if name else b"") + b"data: " + raw + b"\n\n")
    return chunked(pieces, "text/event-stream")

"""The origin of the benchmarks: answers 0.3 kB, or a paced stream to /stream.

`python -m bench.origin [FILE]` prints its port; with FILE, a certificate and its key, it speaks TLS.

Each answer has an id and a date of its own, as those of real APIs do: a proxy gains nothing by remembering the last.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import sys
import time
from typing import cast

import uvloop

from sidecar.wire.framing import END, Head, Role, Scanner

FRAMES = 15
FRAME_SECONDS = 0.02
_CHOICE = {"index": 0, "message": {"role": "assistant", "content": "x" * 90}, "finish_reason": "stop"}
_BODY = json.dumps(
    {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o", "choices": [_CHOICE]}
).encode()
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nDate: Sun, 01 Nov 2026 00:00:%02d GMT\r\nContent-Type: application/json\r\n"
    b"X-Request-Id: req_%012d\r\nContent-Length: %d\r\n\r\n%b"
)
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_numbers = itertools.count()


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._scanner = Scanner(Role.REQUEST)
        self._target = b""
        self._streams: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        events = self._scanner.feed(data)
        while events:
            if isinstance(events[0], Head):
                self._target = events[0].target
            if events[-1] is not END:
                return
            self._answer()
            events = self._scanner.resume()

    def _answer(self) -> None:
        if self._target == b"/stream":
            task = asyncio.get_running_loop().create_task(self._stream())
            self._streams.add(task)
            task.add_done_callback(self._streams.discard)
        else:
            number = next(_numbers)
            self._transport.write(_ANSWER % (number % 60, number, len(_BODY), _BODY))

    async def _stream(self) -> None:
        """Frames that carry the time at which they are sent, in nanoseconds."""
        self._transport.write(_STREAM)
        for _ in range(FRAMES):
            await asyncio.sleep(FRAME_SECONDS)
            frame = b"data: %020d\n\n" % time.perf_counter_ns()
            self._transport.write(b"%x\r\n%b\r\n" % (len(frame), frame))
        self._transport.write(b"0\r\n\r\n")


async def _serve() -> None:
    context = None
    if sys.argv[1:]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1])
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())

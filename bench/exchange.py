"""One exchange in a tight loop, without sockets: what of its cost is ours.

`python -m bench.exchange` prints microseconds, the best of many rounds. `python -m bench.exchange N` only runs N of
them, for callgrind, whose counts no neighbour disturbs; the difference of two runs is what the exchanges took:

    for n in 100 1100; do valgrind --tool=callgrind --callgrind-out-file=/dev/null python -m bench.exchange $n; done

`PYTHONPATH=build/compiled python -P bench/exchange.py` does the same to the compiled hot path.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import time
from collections.abc import Callable
from typing import Any, cast

from sidecar.proxy.config import Upstream
from sidecar.proxy.relay import ClientConnection
from sidecar.proxy.route import Route, no_copy
from sidecar.proxy.upstream import Origin, UpstreamConnection
from sidecar.wire.ring import RingReader, RingWriter

_BODY = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "' + b"x" * 1_635 + b'"}]}'
_REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: api.example\r\nAccept: application/json\r\n"
    b"Accept-Encoding: gzip, deflate\r\nContent-Type: application/json\r\nUser-Agent: bench/1\r\n"
    b"Authorization: Bearer sk-0123456789abcdef0123456789abcdef\r\nX-Session-Id: conversation-1234567\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)
_ANSWER_BODY = b'{"id": "chatcmpl-1", "object": "chat.completion", "choices": ["' + b"x" * 200 + b'"]}'
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nDate: Sun, 01 Nov 2026 00:00:%02d GMT\r\nContent-Type: application/json\r\n"
    b"X-Request-Id: req_%012d\r\nContent-Length: %d\r\n\r\n%b"
)
_RELEASE_EVERY = 2_000  # exchanges, which take about a sixth of the queue


class _Nowhere:
    """A transport that takes everything and does nothing."""

    __slots__ = ()

    def write(self, data: bytes) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        pass

    def get_extra_info(self, name: str) -> None:
        pass


def _exchanges(*, copied: bool, directory: str) -> Callable[[int], None]:
    """What runs so many exchanges."""
    ring = RingWriter(f"{directory}/queue", 32 << 20, body_bytes_max=8 << 20)
    reader = RingReader(f"{directory}/queue")
    nowhere = cast("asyncio.Transport", _Nowhere())
    origin = Origin(Upstream.parse("http://127.0.0.1:9"), ring.status)
    copy = ring.copy if copied else no_copy
    route = Route(0, origin, ring.status, authority=b"127.0.0.1:9", copy=cast("Any", copy))
    client, upstream = ClientConnection(route, asyncio.get_running_loop()), UpstreamConnection(origin)
    client.connection_made(nowhere)
    upstream.connection_made(nowhere)
    origin.release(upstream)
    answers = [_ANSWER % (number % 60, number, len(_ANSWER_BODY), _ANSWER_BODY) for number in range(500)]

    def run(count: int) -> None:
        for number in range(count):
            client.data_received(_REQUEST)
            upstream.data_received(answers[number % 500])
            if not number % _RELEASE_EVERY:
                while reader.read(1 << 20):
                    reader.release(reader.position)

    return run


async def _main() -> None:
    parser = argparse.ArgumentParser(prog="bench.exchange", description=__doc__)
    parser.add_argument("count", type=int, nargs="?", help="run so many exchanges and measure nothing")
    parser.add_argument("--no-copy", action="store_true", help="without the copy for the observer")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-", dir="/dev/shm") as directory:
        run = _exchanges(copied=not options.no_copy, directory=directory)
        gc.disable()
        run(300)  # warm
        if options.count is not None:
            run(options.count)
            return
        best = float("inf")
        for _ in range(60):
            start = time.perf_counter()
            run(1_000)
            best = min(best, time.perf_counter() - start)
        print(f"{best * 1000:.2f} µs for one exchange")


if __name__ == "__main__":
    asyncio.run(_main())

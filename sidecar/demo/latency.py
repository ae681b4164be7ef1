"""What the proxy adds to a request: the same small call, direct and through it, in pairs and in random order.

    python -m sidecar.demo.latency http://127.0.0.1:9000 http://127.0.0.1:8080

It runs as a process of its own, so that nothing else that the demo does holds its interpreter.

Plain sockets, kept open, one request at a time, so that the client costs as little as it can and the same both ways. An
added quantile is the quantile through the proxy minus the quantile direct, of the same run: whatever else the machine
was doing, it did to both.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

WARM_UP_PAIRS = 50
PAIRS = 600
TIMEOUT_SECONDS = 10.0
# No conversation, so no session comes of it; two kilobytes up and a quarter down, about what a chat turn has.
_TEXT = b"The quick brown fox jumps over the lazy dog. " * 42
_BODY = b'{"model":"text-embedding-3-small","input":"' + _TEXT + b'"}'
REQUESTS = WARM_UP_PAIRS + PAIRS  # through the proxy


@dataclass(frozen=True, slots=True)
class Added:
    """Microseconds: direct and added, as medians and 99th percentiles."""

    direct_p50_us: float
    direct_p99_us: float
    added_p50_us: float
    added_p99_us: float


async def measure_apart(direct: str, proxy: str) -> Added:
    """`measure` in a fresh process. Raises OSError with what it said when it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, direct, proxy, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, errors = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise OSError(f"measuring the latency failed: {errors.decode(errors='replace')[-1000:]}")
    return Added(**json.loads(out))


def measure(direct: str, proxy: str, seed: int = 1) -> Added:
    """Base URLs of both ways; blocks for about a second. Raises OSError when a connection breaks."""
    order = random.Random(seed)  # noqa: S311 - an order, not a secret
    with _connect(direct) as one, _connect(proxy) as other:
        ways = [(one, _request(direct)), (other, _request(proxy))]
        taken_us: list[list[float]] = [[], []]
        for _ in range(WARM_UP_PAIRS + PAIRS):
            first = order.randrange(2)
            for way in (first, 1 - first):
                taken_us[way].append(_exchange(*ways[way]))
    return added(taken_us[0][WARM_UP_PAIRS:], taken_us[1][WARM_UP_PAIRS:])


def added(direct_us: list[float], proxied_us: list[float]) -> Added:
    """The quantiles of both and what lies between them."""
    direct = statistics.quantiles(direct_us, n=100, method="inclusive")
    proxied = statistics.quantiles(proxied_us, n=100, method="inclusive")
    return Added(
        direct_p50_us=round(direct[49], 1),
        direct_p99_us=round(direct[98], 1),
        added_p50_us=round(proxied[49] - direct[49], 1),
        added_p99_us=round(proxied[98] - direct[98], 1),
    )


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), TIMEOUT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _request(url: str) -> bytes:
    lines = [
        "POST /v1/embeddings HTTP/1.1",
        f"Host: {urlsplit(url).netloc}",
        "Authorization: Bearer demo-key",
        "Content-Type: application/json",
        f"Content-Length: {len(_BODY)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + _BODY


def _exchange(connection: socket.socket, request: bytes) -> float:
    """One request and its whole answer; microseconds."""
    start = time.perf_counter_ns()
    connection.sendall(request)
    answer = b""
    while not (length := _length(answer)) or len(answer) < length:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("the connection was closed in the middle of an answer")
        answer += data
    taken = (time.perf_counter_ns() - start) / 1000
    if not answer.startswith(b"HTTP/1.1 200 "):
        status = answer.partition(b"\r")[0].decode("latin-1")
        raise ConnectionError(f"answered {status}")
    return taken


def _length(answer: bytes) -> int:
    """Bytes of the whole answer by its Content-Length, 0 while the head is not there."""
    head, end, _ = answer.partition(b"\r\n\r\n")
    if not end:
        return 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(head) + 4 + int(line[15:])
    raise ConnectionError("an answer without Content-Length")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(measure(sys.argv[1], sys.argv[2]))) + "\n")

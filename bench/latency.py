"""Added latency over one kept connection: each round visits every peer once, in random order."""

from __future__ import annotations

import random
import socket
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

KEY = "sk-0123456789abcdef0123456789abcdef"
_HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: api.example\r\nAccept: application/json\r\n"
    b"Accept-Encoding: gzip, deflate\r\nContent-Type: application/json\r\nUser-Agent: bench/1\r\n"
    b"Authorization: Bearer " + KEY.encode() + b"\r\nX-Session-Id: conversation-1234567\r\n"
    b"Content-Length: %d\r\n\r\n"
)


def request(body_bytes: int) -> bytes:
    """A POST as an SDK sends it, with a body of this size."""
    body = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "' + b"x" * (body_bytes - 65) + b'"}]}'
    return _HEAD % len(body) + body


@dataclass(frozen=True)
class Added:
    """Microseconds that a peer adds to direct: the median over rounds of p50; p99 over all requests."""

    p50_us: float
    p99_us: float


def measure(ports: Mapping[str, int], data: bytes, *, rounds: int, requests: int, seed: int) -> dict[str, Added]:
    """Added latency of every peer but `direct`, which all are compared with."""
    chance = random.Random(seed)
    sockets = {name: connect(port) for name, port in ports.items()}
    for sock in sockets.values():
        visit(sock, data, requests)  # warm
    taken: dict[str, list[list[float]]] = {name: [] for name in ports}
    for _ in range(rounds):
        order = list(ports)
        chance.shuffle(order)
        for name in order:
            taken[name].append(visit(sockets[name], data, requests))
    for sock in sockets.values():
        sock.close()
    direct = [statistics.median(one) for one in taken["direct"]]
    direct_p99 = _p99(taken["direct"])
    found = {}
    for name, all_rounds in taken.items():
        if name != "direct":
            added = [statistics.median(one) - base for one, base in zip(all_rounds, direct, strict=True)]
            found[name] = Added(statistics.median(added) / 1000, (_p99(all_rounds) - direct_p99) / 1000)
    found["direct"] = Added(statistics.median(direct) / 1000, direct_p99 / 1000)
    return found


def connect(port: int) -> socket.socket:
    """A connection that sends at once."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def visit(sock: socket.socket, data: bytes, requests: int) -> list[float]:
    """Nanoseconds of each request."""
    taken = []
    for _ in range(requests):
        start = time.perf_counter_ns()
        sock.sendall(data)
        _read_answer(sock)
        taken.append(float(time.perf_counter_ns() - start))
    return taken


def _read_answer(sock: socket.socket) -> None:
    """Up to the end of the JSON body; a peer may send head and body apart, chunk the body or write it anew."""
    data = b""
    while not data.endswith((b"}]}", b"}}", b"\r\n0\r\n\r\n")):
        piece = sock.recv(65_536)
        if not piece:
            raise ConnectionError(f"the peer ended the connection after {data!r}")
        data += piece
    if not data.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"the peer answered {data[:200]!r}")


def _p99(rounds: list[list[float]]) -> float:
    everything = sorted(taken for one in rounds for taken in one)
    return everything[int(len(everything) * 0.99)]

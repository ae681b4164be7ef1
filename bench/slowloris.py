"""A healthy client beside thousands that have connected and say nothing, or begin a head and never finish it."""

from __future__ import annotations

import resource
import socket
import statistics
from dataclasses import dataclass

from bench import latency

CLIENTS = 5_000
_SAID = (b"", b"G", b"POST / HTTP/1.1\r\nHost: a\r\nX: ")


@dataclass(frozen=True)
class Slowloris:
    """p99 in microseconds, medians over rounds: alone, and among the silent. `silent` is how many could be opened."""

    alone_p99_us: float
    among_p99_us: float
    silent: int


def measure(port: int, data: bytes, *, rounds: int, requests: int) -> Slowloris:
    """Alone before and after, so that a machine that grows slower or faster counts for neither."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, CLIENTS + 256)), hard))
    with latency.connect(port) as healthy:
        latency.visit(healthy, data, requests)  # warm
        before = _p99s(healthy, data, rounds, requests)
        silent = [_silent(port, number) for number in range(CLIENTS)]
        among = _p99s(healthy, data, 2 * rounds, requests)
        for sock in silent:
            sock.close()
        after = _p99s(healthy, data, rounds, requests)
    return Slowloris(statistics.median(before + after), statistics.median(among), len(silent))


def _silent(port: int, number: int) -> socket.socket:
    sock = latency.connect(port)
    sock.sendall(_SAID[number % len(_SAID)])
    return sock


def _p99s(sock: socket.socket, data: bytes, rounds: int, requests: int) -> list[float]:
    return [sorted(latency.visit(sock, data, requests))[int(requests * 0.99)] / 1000 for _ in range(rounds)]

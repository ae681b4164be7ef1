"""A stream of events paced by the origin: when the first one comes, and how far apart they arrive."""

from __future__ import annotations

import itertools
import random
import re
import socket
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

from bench.latency import connect
from bench.origin import FRAMES

_REQUEST = b"GET /stream HTTP/1.1\r\nHost: api.example\r\nAccept: text/event-stream\r\n\r\n"
_SENT = re.compile(rb"data: (\d{20})")


@dataclass(frozen=True)
class Paced:
    """In microseconds: p50 of the first frame's way from the origin, p99 of what the gaps between arrivals differ from
    the gaps between sendings (frames say when they were sent), and whether every frame arrived by itself.
    """

    first_p50_us: float
    gap_p99_us: float
    one_by_one: bool


def measure(ports: Mapping[str, int], *, streams: int, seed: int) -> dict[str, Paced]:
    """`streams` streams of each peer, in random order; nothing is subtracted."""
    chance = random.Random(seed)
    sockets = {name: connect(port) for name, port in ports.items()}
    first: dict[str, list[float]] = {name: [] for name in ports}
    gaps: dict[str, list[float]] = {name: [] for name in ports}
    alone = dict.fromkeys(ports, True)
    for _ in range(streams):
        order = list(ports)
        chance.shuffle(order)
        for name in order:
            ways, separate = _visit(sockets[name])
            alone[name] = alone[name] and separate
            first[name].append(ways[0])
            gaps[name] += [abs(late - early) for early, late in itertools.pairwise(ways)]
    for sock in sockets.values():
        sock.close()
    return {
        name: Paced(statistics.median(first[name]), sorted(gaps[name])[int(len(gaps[name]) * 0.99)], alone[name])
        for name in ports
    }


def _visit(sock: socket.socket) -> tuple[list[float], bool]:
    """How long each frame was on its way, in microseconds, and whether no two came at once."""
    sock.sendall(_REQUEST)
    ways: list[float] = []
    pieces = 0
    data = b""
    while not data.endswith(b"0\r\n\r\n"):
        piece = sock.recv(65_536)
        now = time.perf_counter_ns()
        if not piece:
            raise ConnectionError("the peer ended the stream")
        sent = _SENT.findall(piece)
        ways += [(now - int(one)) / 1000 for one in sent]
        pieces += bool(sent)
        data += piece
    return ways, pieces == FRAMES

"""Memory of the proxy's process besides the queue: idle, with many idle connections, after much has gone through."""

from __future__ import annotations

import resource
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from bench.latency import connect
from bench.peers import Peer

CONNECTIONS = 2_000
_PIECE = b"x" * (1 << 20)
_BODIES = 4
_BODY_PIECES = 256


@dataclass(frozen=True)
class Memory:
    """Resident MiB, shared memory (the queue) left out."""

    idle: float
    with_connections: float
    after_1_gb: float


def measure(peer: Peer) -> Memory:
    """Of a proxy that has served little so far."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * CONNECTIONS + 256)), hard))
    idle = _resident(peer.pid)
    for _ in range(_BODIES):
        _upload(peer.port)
    time.sleep(1.5)  # the connections to the origin end, buffers go back
    after = _resident(peer.pid)
    sockets = [socket.create_connection(("127.0.0.1", peer.port), timeout=20) for _ in range(CONNECTIONS)]
    time.sleep(0.5)
    many = _resident(peer.pid)
    for sock in sockets:
        sock.close()
    return Memory(idle, many, after)


def _upload(port: int) -> None:
    with connect(port) as sock:
        size = len(_PIECE) * _BODY_PIECES
        sock.sendall(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(_BODY_PIECES):
            sock.sendall(_PIECE)
        if not sock.recv(65_536).startswith(b"HTTP/1.1 200"):
            raise ConnectionError("the upload was not answered")


def _resident(pid: int) -> float:
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Rss")
    )
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssFile")) / 1024

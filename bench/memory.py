"""Memory besides the queue: of the proxy's process idle, with many idle connections, after much has gone through; and
of the whole sidecar, idle.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from bench.latency import connect
from bench.peers import Peer
from bench.processes import PATIENCE_S, family, free_port, process

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


@dataclass(frozen=True)
class Whole:
    """MiB of each process of `sidecar run`, idle; pages that they share are counted once, those of the queue not."""

    proxy: float
    observer: float
    embedded_redis: float


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


def measure_whole(origin: int) -> Whole:
    """Of a sidecar with an embedded Redis and a billing API that is away, once everything else is up."""
    admin = free_port()
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-whole-") as directory:
        own = {
            "SIDECAR_UPSTREAM": f"http://127.0.0.1:{origin}",
            "SIDECAR_LISTEN": f"127.0.0.1:{free_port()}",
            "SIDECAR_ADMIN_LISTEN": f"127.0.0.1:{admin}",
            "SIDECAR_BILLING_URL": f"http://127.0.0.1:{free_port()}",
            "SIDECAR_DATA_DIR": directory,
        }
        env = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")} | own
        cores = os.sched_getaffinity(0)
        with process([sys.executable, "-P", "-m", "sidecar", "run"], cores, env) as started:
            _wait_up(admin)
            time.sleep(3)  # what starting took goes back
            return Whole(
                _proportional(started.pid),
                _proportional(_descendant(started.pid, "sidecar.app")),
                _proportional(_descendant(started.pid, "valkey")),
            )


def _wait_up(admin: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    states: dict[str, str] = {}
    while states.get("observer") != "ok" or states.get("redis") != "ok":
        if time.monotonic() > deadline:
            raise RuntimeError(f"the sidecar is not up: {states}")
        time.sleep(0.2)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz?verbose", timeout=5) as answer:
                parts = json.load(answer)["parts"]
        except (urllib.error.URLError, OSError):
            continue
        states = {name: part.get("state", "") for name, part in parts.items()}


def _descendant(pid: int, word: str) -> int:
    for one in family(pid)[1:]:
        if word in Path(f"/proc/{one}/cmdline").read_text().replace("\0", " "):
            return one
    raise RuntimeError(f"there is no {word}")


def _proportional(pid: int) -> float:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(fields[name].split()[0]) for name in ("Pss_Anon", "Pss_File")) / 1024

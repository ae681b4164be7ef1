"""Towards a TLS origin: a client that makes a new connection for each request, and one that keeps its connection."""

from __future__ import annotations

import random
import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from bench import latency, proxies
from bench.peers import DIRECT, NGINX, SIDECAR
from bench.processes import cores

_Connect = Callable[[], socket.socket]


@dataclass(frozen=True)
class Tls:
    """Microseconds, medians: `fresh` with a new connection for each request, `kept` over one that is kept."""

    fresh_p50_us: float
    kept_p50_us: float


def measure(data: bytes, *, rounds: int, seed: int, trees: Mapping[str, str]) -> dict[str, Tls]:
    """Of direct (TLS by the client itself), the sidecar, nginx, and other checkouts of the project by name; each round
    visits all, in random order.
    """
    chance = random.Random(seed)
    fresh: dict[str, list[float]] = {}
    kept: dict[str, list[float]] = {}
    with _ways(trees) as ways:
        sockets = {name: connect() for name, connect in ways.items()}
        for sock in sockets.values():
            latency.visit(sock, data, 50)  # warm
        for _ in range(rounds):
            order = list(ways)
            chance.shuffle(order)
            for name in order:
                kept.setdefault(name, []).append(statistics.median(latency.visit(sockets[name], data, 50)))
                taken = [_fresh(ways[name], data) for _ in range(15)]
                fresh.setdefault(name, []).append(statistics.median(taken))
        for sock in sockets.values():
            sock.close()
    return {name: Tls(statistics.median(fresh[name]) / 1000, statistics.median(kept[name]) / 1000) for name in sockets}


def _fresh(connect: _Connect, data: bytes) -> float:
    start = time.perf_counter_ns()
    with connect() as sock:
        latency.visit(sock, data, 1)
        return float(time.perf_counter_ns() - start)


@contextmanager
def _ways(trees: Mapping[str, str]) -> Iterator[dict[str, _Connect]]:
    near, far = cores()
    authority = trustme.CA()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sidecar-bench-tls-")))
        trusted, own = str(directory / "ca.pem"), str(directory / "own.pem")
        authority.cert_pem.write_to_path(trusted)
        authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(own)
        origin = stack.enter_context(proxies.python("bench.origin", [own], far))[0]
        context = ssl.create_default_context(cafile=trusted)

        def direct() -> socket.socket:
            return context.wrap_socket(latency.connect(origin), server_hostname="localhost")

        running = {SIDECAR: proxies.sidecar(origin, near, capture=True, ca_file=trusted)}
        for name, tree in trees.items():
            running[name] = proxies.sidecar(origin, near, capture=True, ca_file=trusted, tree=tree)
        if proxies.found("nginx"):
            running[NGINX] = proxies.nginx(origin, near, ca_file=trusted)
        ways: dict[str, _Connect] = {DIRECT: direct}
        for name, one in running.items():
            ways[name] = _to(stack.enter_context(one)[0])
        yield ways


def _to(port: int) -> _Connect:
    return lambda: latency.connect(port)

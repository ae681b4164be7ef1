"""Many connections at once, by wrk: CPU per request, and how many requests a second one core can carry."""

from __future__ import annotations

import os
import random
import re
import statistics
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.peers import Peer
from bench.processes import cores, cpu_us, family

_RATE = re.compile(r"Requests/sec:\s+([0-9.]+)")
_COUNT = re.compile(r"(\d+) requests in")
_FAILED = re.compile(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)")


@dataclass(frozen=True)
class Load:
    """Medians over rounds. CPU is of the proxy's process and, for nginx, its master (which does nothing)."""

    cpu_us: float
    per_second: float
    failures: str = ""


def measure(
    peers: Mapping[str, Peer], data: bytes, *, connections: int, rounds: int, seconds: int, seed: int
) -> dict[str, Load]:
    """Each round visits every peer once, in random order, for `seconds` with all `connections` busy."""
    chance = random.Random(seed)
    found: dict[str, list[Load]] = {name: [] for name in peers}
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-wrk-") as directory:
        script = Path(directory, "post.lua")
        script.write_text(_lua(data))
        for _ in range(rounds):
            order = list(peers)
            chance.shuffle(order)
            for name in order:
                found[name].append(_visit(peers[name], str(script), connections, seconds))
    return {
        name: Load(
            statistics.median(one.cpu_us for one in some),
            statistics.median(one.per_second for one in some),
            " ".join(one.failures for one in some if one.failures),
        )
        for name, some in found.items()
    }


def _visit(peer: Peer, script: str, connections: int, seconds: int) -> Load:
    own = [pid for pid in family(peer.pid) if "\0bench.drain\0" not in Path(f"/proc/{pid}/cmdline").read_text()]
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, f"http://127.0.0.1:{peer.port}/"]
    before = cpu_us(own)
    done = subprocess.run(argv, check=True, capture_output=True, text=True, preexec_fn=_far)
    used = cpu_us(own) - before
    rate, count = _RATE.search(done.stdout), _COUNT.search(done.stdout)
    if rate is None or count is None:
        raise RuntimeError(f"wrk said: {done.stdout}")
    failed = _FAILED.search(done.stdout)
    return Load(used / max(1, int(count[1])), float(rate[1]), failed[0] if failed else "")


def _far() -> None:
    os.sched_setaffinity(0, cores()[1])


def _lua(data: bytes) -> str:
    head, _, body = data.decode("latin-1").partition("\r\n\r\n")
    lines = head.split("\r\n")
    fields = [line.partition(": ") for line in lines[1:] if not line.startswith("Content-Length")]
    return "\n".join(
        [
            'wrk.method = "POST"',
            f'wrk.path = "{lines[0].split()[1]}"',
            *(f'wrk.headers["{name}"] = "{value}"' for name, _, value in fields),
            f"wrk.body = [[{body}]]",
        ]
    )

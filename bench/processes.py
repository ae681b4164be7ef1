"""Processes that are measured: started, pinned to a core, waited for, stopped; and what they have used."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PATIENCE_S = 20.0
_AVAILABLE = sorted(os.sched_getaffinity(0))  # before this process pins itself
_SPIN = """import os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
try: open("/proc/self/autogroup", "w").write("19")  # where sessions are scheduled as groups, the group yields too
except OSError: pass
print(0, flush=True)
while True: pass"""


def cores() -> tuple[set[int], set[int]]:
    """The core of the proxies, and the core of client and origin (the same one when there is only one)."""
    return {_AVAILABLE[0]}, {_AVAILABLE[-1]}


@contextmanager
def process(
    argv: list[str], pinned: set[int], env: Mapping[str, str] | None = None, *, own_session: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Run `argv` on the cores `pinned`; ended behind the `with`."""
    started = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env, start_new_session=own_session
    )
    os.sched_setaffinity(started.pid, pinned)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def printed_port(started: subprocess.Popen[str]) -> int:
    """The number that the process prints once it is ready."""
    if started.stdout is None:
        raise RuntimeError("the process has no output")
    line = started.stdout.readline()
    if not line.strip().isdecimal():
        raise RuntimeError(f"{started.args!r} did not start")
    return int(line)


def free_port() -> int:
    """A port nobody listens on, for programs that cannot choose one and tell."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_listening(port: int, seconds: float = PATIENCE_S) -> None:
    """Return when something accepts connections on `port`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise RuntimeError(f"nothing listens on port {port}") from None
            time.sleep(0.05)
        else:
            return


@contextmanager
def awake() -> Iterator[None]:
    """Keep every core from halting, with a spinner each at idle priority (SCHED_IDLE: it yields at once).

    A virtual machine's halted core is woken by its host, which takes tens of microseconds, is charged to every proxy
    alike, once per hop and direction, and says nothing about any of them.
    """
    with ExitStack() as stack:
        for core in _AVAILABLE:
            printed_port(stack.enter_context(process([sys.executable, "-c", _SPIN], {core}, own_session=True)))
        yield


@contextmanager
def pinned_to(some: set[int]) -> Iterator[None]:
    """This process on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, some)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    return found


def cpu_us(pids: list[int]) -> float:
    """User and system time used so far, in microseconds; by the scheduler's clock, since `stat` counts in 10 ms."""
    used_ns = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with suppress(FileNotFoundError):  # it has just ended
                used_ns += int(thread.read_text().split()[0])
    return used_ns / 1000

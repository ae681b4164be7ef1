"""The system under demonstration: a fake LLM and a sidecar with everything embedded, as processes on free ports.

What it starts it ends, by process id, and the directories that it makes it removes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

START_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.05
LOG_LINES_SHOWN = 40
_PR_SET_PDEATHSIG = 1  # prctl(2)
_LIBC = ctypes.CDLL(None)
T = TypeVar("T")
_TMPFS = Path("/dev/shm")  # noqa: S108 - a tmpfs by intent: the queue's memory


class SystemFailedError(RuntimeError):
    """A part did not start or went away; the text has the end of its log."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Base URLs: where the agents call, what stands behind, and the two APIs."""

    proxy: str
    upstream: str
    admin: str
    billing: str


class System:
    """A running system; made by `running`."""

    def __init__(self, addresses: Addresses, sidecar: asyncio.subprocess.Process, log: Path, plan: Path) -> None:
        self.addresses = addresses
        self._plan = plan
        self._sidecar = sidecar
        self._log = log
        self._http = httpx.AsyncClient(trust_env=False, timeout=10.0)

    def check(self) -> None:
        """Raise SystemFailedError when the sidecar has ended."""
        if self._sidecar.returncode is not None:
            raise SystemFailedError(f"`sidecar run` ended with {self._sidecar.returncode}\n{log_end(self._log)}")

    def log_end(self) -> str:
        """The last lines of the sidecar's log."""
        return log_end(self._log)

    async def observer_at_work(self) -> int | None:
        """The process id of the observer, None while there is none or it is still about to start."""
        with contextlib.suppress(httpx.HTTPError, KeyError, TypeError, ValueError):
            answer = await self._http.get(f"{self.addresses.admin}/readyz?verbose")
            parts = answer.json()["parts"]
            pid = int(parts["observer"]["pid"])
            works = parts["observer"]["state"] == parts["redis"]["state"] == "ok"
            return pid if works and pid > 1 and parent_pid(pid) == self._sidecar.pid else None
        return None

    async def kill_observer(self) -> int:
        """Send SIGKILL to the observer at work, a child of the sidecar started here; returns its pid."""
        pid = await until(self.observer_at_work, "an observer to kill", self.check)
        os.kill(pid, signal.SIGKILL)
        return pid

    async def observer_after(self, dead: int) -> int:
        """The pid of the observer that took over from `dead`."""

        async def fresh() -> int | None:
            pid = await self.observer_at_work()
            return pid if pid != dead else None

        return await until(fresh, "the observer to be started again", self.check)

    async def sessions_begun(self) -> dict[str, int]:
        """How many sessions of each conversation the sidecar knows; empty while it does not answer."""
        with contextlib.suppress(httpx.TransportError):
            answer = await self._http.get(f"{self.addresses.admin}/v1/sessions", params={"limit": "1000"})
            if answer.is_success:
                return Counter(session["conversation"] for session in answer.json()["sessions"])
        return {}

    async def follow_plan(self, source: bytes) -> None:
        """Replace the sidecar's plan, and wait until the new one is in force."""
        replace_file(self._plan, source)
        wanted = f'digest="sha256:{hashlib.sha256(source).hexdigest()}"'

        async def in_force() -> bool | None:
            with contextlib.suppress(httpx.TransportError):
                answer = await self._http.get(f"{self.addresses.admin}/metrics")
                return True if answer.is_success and wanted in answer.text else None
            return None

        await until(in_force, "the sidecar to take up the plan of the last act", self.check)

    async def requests(self) -> int:
        """How many requests the proxy has counted."""

        async def metrics() -> httpx.Response | None:
            with contextlib.suppress(httpx.TransportError):
                answer = await self._http.get(f"{self.addresses.admin}/metrics")
                return answer if answer.is_success else None
            return None

        answer = await until(metrics, "the sidecar's metrics", self.check)
        for line in answer.text.splitlines():
            if line.startswith("sidecar_requests_total "):
                return int(float(line.split()[1]))
        raise SystemFailedError("the metrics do not say how many requests passed (sidecar_requests_total)")

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()


@contextlib.asynccontextmanager
async def running(examples: Path, plan: Path, first: bytes, say: Callable[[str], None]) -> AsyncIterator[System]:
    """Start the fake LLM and the sidecar; when left, both are ended and their directories removed.

    The billing API rates by `plan`, the sidecar follows a copy of its own, at first with the content `first`.
    """
    async with contextlib.AsyncExitStack() as stack:
        data = _directory(stack, None)
        queue = _directory(stack, _TMPFS if os.access(_TMPFS, os.W_OK | os.X_OK) else None)
        say("starting a fake LLM")
        fake = await _start(stack, data / "fake-llm.log", [str(examples / "fake_llm.py"), "--port", "0"])
        upstream = await _address_line(fake, data / "fake-llm.log")
        say("starting the sidecar, with a Redis and a billing API of its own")
        log = data / "sidecar.log"
        followed = data / "plan.yaml"
        replace_file(followed, first)
        environ = environment(data, queue, plan, upstream) | {"SIDECAR_PLAN": str(followed)}
        sidecar = await _start(stack, log, ["-m", "sidecar", "run"], environ)
        addresses = await _addresses(sidecar, data, queue, upstream, log)
        system = System(addresses, sidecar, log, followed)
        stack.push_async_callback(system.close)
        try:
            await until(system.observer_at_work, "the observer to start", system.check)
            yield system
        except TimeoutError as error:
            raise SystemFailedError(f"{error}\n{log_end(log)}") from error


def environment(data: Path, queue: Path, plan: Path, upstream: str) -> dict[str, str]:
    """This process's environment, with the demo's settings instead of any other of the sidecar's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    return inherited | {
        "SIDECAR_UPSTREAM": upstream,
        "SIDECAR_LISTEN": "127.0.0.1:0",
        "SIDECAR_ADMIN_LISTEN": "127.0.0.1:0",
        "SIDECAR_REDIS_URL": "embedded",
        "SIDECAR_BILLING_URL": "embedded",
        "SIDECAR_BILLING_LISTEN": "127.0.0.1:0",
        "SIDECAR_DATA_DIR": str(data / "data"),
        "SIDECAR_QUEUE_DIR": str(queue),
        "SIDECAR_PLAN": str(plan),
        "SIDECAR_BILLING_PLAN": str(plan),
        "SIDECAR_TENANT": "demo",
        "SIDECAR_DRAIN_SECONDS": "5",
        "SIDECAR_LOG_FORMAT": "json",
    }


def _directory(stack: contextlib.AsyncExitStack, parent: Path | None) -> Path:
    path = Path(tempfile.mkdtemp(prefix="sidecar-demo-", dir=parent))
    stack.callback(shutil.rmtree, path, ignore_errors=True)
    return path


async def _start(
    stack: contextlib.AsyncExitStack, log: Path, arguments: list[str], environ: dict[str, str] | None = None
) -> asyncio.subprocess.Process:
    """A process in a session of its own, so that Ctrl-C reaches the demo alone, which then ends it in order."""
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if environ is None else sink,
            stderr=sink,
            env=environ,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    stack.push_async_callback(_end, process)
    return process


def _end_with_parent() -> None:
    """Runs in the child: should the demo be killed outright, nothing of it stays behind."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


async def _address_line(fake: asyncio.subprocess.Process, log: Path) -> str:
    assert fake.stdout is not None  # noqa: S101 - it was asked for
    try:
        line = await asyncio.wait_for(fake.stdout.readline(), START_SECONDS)
        return str(json.loads(line)["address"])
    except (TimeoutError, ValueError, KeyError) as error:
        raise SystemFailedError(f"the fake LLM did not start\n{log_end(log)}") from error


async def _addresses(
    sidecar: asyncio.subprocess.Process, data: Path, queue: Path, upstream: str, log: Path
) -> Addresses:
    def check() -> None:
        if sidecar.returncode is not None:
            raise SystemFailedError(f"`sidecar run` ended with {sidecar.returncode}\n{log_end(log)}")

    async def listening() -> dict[str, Any] | None:
        return next(filter(None, map(read_json, listening_files(queue))), None)

    async def billing() -> dict[str, Any] | None:
        return read_json(data / "data" / "billing.json")

    async def answering() -> bool | None:
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as http:
            with contextlib.suppress(httpx.HTTPError):
                return True if (await http.get(f"{addresses.admin}/readyz")).is_success else None
        return None

    try:
        bound = await until(listening, "the sidecar to listen", check)
        ledger = await until(billing, "the billing API to listen", check)
        addresses = Addresses(
            proxy=as_url(bound["routes"][0]["listen"]),
            upstream=upstream,
            admin=as_url(bound["admin"]),
            billing=as_url(ledger["address"]),
        )
        await until(answering, "the sidecar to be ready", check)
    except TimeoutError as error:
        raise SystemFailedError(f"{error}\n{log_end(log)}") from error
    return addresses


async def until(
    ask: Callable[[], Awaitable[T | None]],
    what: str,
    check: Callable[[], None] | None = None,
    seconds: float = START_SECONDS,
) -> T:
    """Ask again and again until the answer is not None; `check` may raise. Raises TimeoutError naming `what`."""
    end = asyncio.get_running_loop().time() + seconds
    while (answer := await ask()) is None:
        if check is not None:
            check()
        if asyncio.get_running_loop().time() > end:
            raise TimeoutError(f"waited {seconds:.0f} seconds in vain for {what}")
        await asyncio.sleep(POLL_SECONDS)
    return answer


def listening_files(queue: Path) -> list[Path]:
    """Where the proxy writes the addresses that it got: in the one runtime directory of this queue directory."""
    return sorted(queue.glob("sidecar-*/listening.json"))


def as_url(address: str) -> str:
    """`127.0.0.1:8080` → `http://127.0.0.1:8080`; a URL stays as it is."""
    return address.rstrip("/") if "://" in address else f"http://{address}"


def replace_file(path: Path, content: bytes) -> None:
    """Whole or not at all, for whoever reads it meanwhile."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file that may not be there, or not whole, yet."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def log_end(log: Path) -> str:
    """The last lines of a process's log."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-LOG_LINES_SHOWN:])


def parent_pid(pid: int) -> int | None:
    """Who started a process, None when it is gone (proc(5): the fourth field of stat, after the name in brackets)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[1])

"""The processes that the proxy starts, watches, starts again and stops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

from sidecar.proxy.config import ChildConfig
from sidecar.proxy.log import Log
from sidecar.wire.status import OBSERVER_STATES, Slot, StatusPage

BACKOFF_MIN_SECONDS: Final = 0.2
BACKOFF_MAX_SECONDS: Final = 5.0
# A child that ran for this long starts again without delay to speak of.
_SETTLED_SECONDS: Final = 10.0
_STOP_SECONDS_MIN: Final = 5.0


def backoff_seconds(failures: int) -> float:
    """How long to wait before a start, after this many short lives in a row."""
    return min(BACKOFF_MAX_SECONDS, BACKOFF_MIN_SECONDS * 2.0 ** min(failures, 10))


class Child:
    """One child: kept alive by `run()` until `stop()`."""

    def __init__(self, config: ChildConfig, status: StatusPage, log: Log) -> None:
        self.name = config.name
        self.starts = 0
        self._config = config
        self._status = status
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        return self._process.pid if self._process is not None and self.alive else None

    async def start(self) -> None:
        """Start the process, and from now on start it again whenever it dies."""
        await self._spawn()
        self._task = asyncio.get_running_loop().create_task(self._watch())

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self, seconds: float) -> None:
        """SIGTERM, after `seconds` SIGKILL; returns when it is gone."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        process = self._process
        if process is None or process.returncode is not None:
            return
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            self._log.warning("child_killed", child=self.name, pid=process.pid, waited_seconds=round(seconds, 1))
            self.signal(signal.SIGKILL)
            await process.wait()

    async def _spawn(self) -> None:
        argv = [sys.executable, "-m", "sidecar.proxy.lifeline", str(os.getpid()), "--", *self._config.argv]
        self._process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            env={**os.environ, **self._config.env},
            start_new_session=True,  # Ctrl-C is for the proxy, which stops its children in order
        )
        self.starts += 1
        if self.name == "observer":
            self._status.add(Slot.OBSERVER_STARTS)
            for slot in OBSERVER_STATES:
                self._status.set(slot, 0)
        self._log.info("child_started", child=self.name, pid=self._process.pid, starts=self.starts)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        started = loop.time()
        while True:
            if self._process is not None:
                code = await self._process.wait()
                self._log.warning("child_exited", child=self.name, pid=self._process.pid, code=code)
            failures = 0 if loop.time() - started > _SETTLED_SECONDS else failures + 1
            await asyncio.sleep(backoff_seconds(failures - 1) if failures else BACKOFF_MIN_SECONDS)
            started = loop.time()
            try:
                await self._spawn()
            except OSError as error:
                self._process = None
                self._log.error("child_not_started", child=self.name, reason=str(error))


class Children:
    """All of them, in the order in which they start."""

    def __init__(self, configs: Sequence[ChildConfig], status: StatusPage, log: Log) -> None:
        self._children = [Child(config, status, log) for config in configs]

    def get(self, name: str) -> Child | None:
        """The child of that name, if there is one."""
        return next((child for child in self._children if child.name == name), None)

    async def start(self) -> None:
        """Start each in turn."""
        for child in self._children:
            await child.start()

    async def stop(self, until: float) -> None:
        """Stop each in reverse order, by `until` (the loop's time); each gets 5 s at least."""
        loop = asyncio.get_running_loop()
        for child in reversed(self._children):
            await child.stop(max(_STOP_SECONDS_MIN, until - loop.time()))

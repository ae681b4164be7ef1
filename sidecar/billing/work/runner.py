"""Starts runs one after the other, each in a child process, and writes down how they stand.

The child has memory and processor time of its own: a backtest of a large ledger slows no request. What stops here (the
replica ends, the child is killed) leaves a row whose heartbeat ends, which every replica then shows as lost.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from sidecar.billing.service import Billing
from sidecar.billing.work import runs
from sidecar.billing.work.runs import Wanted

log = structlog.get_logger()
WAITING_MAX = 8
MEMORY_BYTES_MAX = 2 << 30
BEAT_SECONDS = 5.0
_NOTE_SECONDS = 1.0
_LINE_BYTES_MAX = 32 << 20


class BusyError(RuntimeError):
    """Too many runs wait already."""


class LineTooLongError(RuntimeError):
    """The child said more at once than is kept."""


class Runner:
    """The runs of one replica of `billing`: one works, the others wait."""

    def __init__(self, billing: Billing, memory_bytes_max: int = MEMORY_BYTES_MAX) -> None:
        self._billing = billing
        self._memory_bytes_max = memory_bytes_max
        self._turn = asyncio.Lock()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.child: Process | None = None

    async def start(self, wanted: Wanted, **more: Any) -> str:
        """Note a run and begin it when its turn comes; its id. `more` goes into the job. Raises BusyError."""
        if len(self._tasks) > WAITING_MAX:
            raise BusyError(f"{WAITING_MAX} runs wait already: try again when one has finished")
        run_id = await runs.add(self._billing.database, wanted, self._billing.clock())
        job = {
            "kind": wanted.kind, "period": str(wanted.period), "about": wanted.about, "source": wanted.source,
            "url": self._billing.database.engine.url.render_as_string(hide_password=False),
            "memory_bytes_max": self._memory_bytes_max, **more,
        }  # fmt: skip
        task = asyncio.create_task(self._follow(run_id, job))
        self._tasks[run_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(run_id, None))
        return run_id

    async def finish(self) -> None:
        """Wait until nothing runs any more."""
        await asyncio.gather(*self._tasks.values())

    async def stop(self, _: object = None) -> None:
        """End what runs; its row says that it was lost."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, run_id: str, job: dict[str, Any]) -> None:
        beating = asyncio.create_task(self._beat(run_id))
        try:
            async with self._turn:
                await self._note(run_id, state="running")
                values = await self._work(run_id, job)
            with suppress(SQLAlchemyError):  # the heartbeat ends, and so the run is shown as lost
                await runs.change(self._billing.database, run_id, finished_us=self._billing.clock(), **values)
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def _beat(self, run_id: str) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            await self._note(run_id)

    async def _note(self, run_id: str, **values: Any) -> None:
        """Write down how it stands, and that somebody works on it."""
        with suppress(SQLAlchemyError):
            await runs.change(self._billing.database, run_id, beat_us=self._billing.clock(), **values)

    async def _work(self, run_id: str, job: dict[str, Any]) -> dict[str, Any]:
        """What to write down at the end. The child logs to our stderr what it fails at."""
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "sidecar.billing.work.child", stdin=PIPE, stdout=PIPE, limit=_LINE_BYTES_MAX,
            )  # fmt: skip
        except OSError as error:
            log.error("run_not_started", run=run_id, error=str(error))
            return {"state": "failed", "error": f"no process could be started: {error.strerror}"}
        self.child = process
        try:
            return await self._listen(run_id, process, job)
        except LineTooLongError:
            told = f"what came of it is larger than {_LINE_BYTES_MAX >> 20} MiB"
            log.error("run_failed", run=run_id, error=told)
            return {"state": "failed", "error": told}
        finally:
            self.child = None
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _listen(self, run_id: str, process: Process, job: dict[str, Any]) -> dict[str, Any]:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("both were asked for")
        with suppress(ConnectionError):  # it has ended already, which is told below
            process.stdin.write(json.dumps(job).encode() + b"\n")
            await process.stdin.drain()
        noted = 0.0
        async for line in _lines(process.stdout):
            told = json.loads(line)
            if "result" in told:
                return {"state": "done", "result": json.dumps(told["result"])}
            if "error" in told:
                log.error("run_failed", run=run_id, error=told["error"])
                return {"state": "failed", "error": told["error"]}
            now = asyncio.get_running_loop().time()
            if "total" in told or now - noted >= _NOTE_SECONDS:
                noted = now
                await self._note(run_id, **told)
        code = await process.wait()
        log.error("run_ended_early", run=run_id, exit_code=code)
        return {"state": "failed", "error": f"the process that worked on it ended early, with {code}"}


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        try:
            line = await stream.readline()
        except ValueError as error:
            raise LineTooLongError from error
        if not line:
            return
        yield line

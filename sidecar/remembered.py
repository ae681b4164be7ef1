"""What an observer remembers from one start to the next: the deployment's hash key, and which queue its journal knows.

Both stand in the journal, and the key in Redis too. Either may be away at the start, and for long; what could not be
read or written then is made good at a later heartbeat (`settle`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

import structlog
from redis.exceptions import RedisError

from sidecar.observer.journal import Journal, JournalFull
from sidecar.policy.loading import LoadedPlan
from sidecar.preflight import remember_plan
from sidecar.sessions.store import Store
from sidecar.settings import Settings

REDIS_SECONDS = 3.0

log = structlog.get_logger(__name__)


class Remembered:
    """`queue` is the producer id of the queue, `was_read` whether a former observer has read it.

    `start_again` is called when this process has another hash key than the one in force: under two keys, what was said
    before looks new.
    """

    def __init__(
        self,
        journal: Journal,
        store: Store,
        *,
        queue: str,
        was_read: bool,
        count: Callable[[str, int], None],
        start_again: Callable[[], None],
    ) -> None:
        self._journal = journal
        self._store = store
        self._queue = queue
        self._was_read = was_read
        self._count = count
        self._start_again = start_again
        self._hash_key_hex: str | None = None  # None when it is given by the settings
        self._in_force = False  # the key is the one in Redis, not a guess
        self._settled = False
        self._generation = ""  # of the data in which the hash key is known to be kept
        self._recoveries = 0  # of the journal, reported so far

    async def hash_key(self) -> bytes:
        """The deployment's key: the one in Redis, or the one that the journal remembers, or a new one."""
        proposal = None
        with contextlib.suppress(JournalFull):
            proposal = await asyncio.to_thread(self._journal.meta, "hash_key")
        proposal = proposal or os.urandom(32).hex()
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(REDIS_SECONDS):
                proposal = await self._store.hash_key(proposal)
                self._in_force = True
        self._hash_key_hex = proposal
        return bytes.fromhex(proposal)

    async def settle(self) -> None:
        """Say what became of the journal, and have it remember the key and the queue; later, when it cannot now."""
        self._report_recovered()
        if self._settled:
            return
        with contextlib.suppress(JournalFull):
            await asyncio.to_thread(self._settle)
            self._settled = True

    def _settle(self) -> None:
        kept = self._journal.meta("hash_key")
        if self._hash_key_hex is not None and kept != self._hash_key_hex:
            if kept is not None and not self._in_force:
                self._changed("the journal, which could not be read at the start, has another hash key")
                return
            self._journal.set_meta("hash_key", self._hash_key_hex)
        name = f"queue:{self._queue}"
        if self._was_read and self._journal.meta(name) is None:
            log.error("journal_lost", queue=self._queue)
            self._count("journal_lost", 1)
        self._journal.set_meta(name, "known")

    def _report_recovered(self) -> None:
        """At any time: what was in the former file, and not in Redis yet, is lost."""
        if self._journal.recoveries > self._recoveries:
            log.error("journal_recovered", reason=self._journal.recovered_from)
            self._count("journal_recovered", self._journal.recoveries - self._recoveries)
            self._recoveries = self._journal.recoveries

    async def keep_hash_key(self, generation: str) -> None:
        """In new data the key is put back, lest a replica that starts then makes another one.

        If another is kept there already (Redis was away when this observer started), that one is in force.
        """
        if generation == self._generation:
            return
        if self._hash_key_hex is not None and await self._store.hash_key(self._hash_key_hex) != self._hash_key_hex:
            self._changed("another replica's hash key is in force")
        self._in_force = True
        self._generation = generation

    def _changed(self, why: str) -> None:
        log.error("hash_key_changed", reason=why)
        self._count("hash_key_changed", 1)
        self._start_again()


class PlanMemory:
    """Keeps the plan in force for a restarted observer whose plan file is broken by then; waits for a full disk."""

    def __init__(self, settings: Settings, count: Callable[[str, int], None]) -> None:
        self._settings = settings
        self._count = count
        self._waiting: LoadedPlan | None = None

    def keep(self, plan: LoadedPlan | None = None) -> None:
        """Keep `plan`, or the one that could not be kept before."""
        plan = plan or self._waiting
        if plan is None:
            return
        try:
            remember_plan(self._settings, plan)
        except OSError as error:
            if self._waiting is None:
                log.warning("plan_not_kept", plan=plan.name, reason=str(error))
                self._count("plan_not_kept", 1)
            self._waiting = plan
            return
        self._waiting = None

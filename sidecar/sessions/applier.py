"""Journal → Redis: every fact, in the journal's order, as often as it takes.

How it works. The applier reads rows after its cursor, sends them to the store in batches, and moves the cursor past
what is final. It trusts Redis, not itself: each fact names its producer's preceding sequence, and when Redis answers
`rewind` (it lost its last second) the cursor goes back to the first row that Redis does not have. What Redis already
has answers `duplicate` and costs little. When the store's generation changed, Redis lost everything and the whole
journal is applied again; ids are derived, so nothing counts twice. While rows wait, `pending_ms` holds the replica's
mark back, so that no deadline fires that waiting traffic would have moved.

Which session an observation went to is noted in the journal, and it goes there again: so a replay finds the same
sessions although the replicas' journals come in another order than the facts did. An observation that is known by its
texts alone, and follows something that Redis does not know, is answered `early` while another replica may still bring
it, until `PATIENCE_MS` after its end.

A row that the journal no longer has is a hole: logged, counted, and passed over. A row that cannot be read is counted
and passed over too; both leave a trace in the counters, never a standstill.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence

import orjson
import structlog
from redis.exceptions import RedisError

from sidecar.observer.journal import Journal, JournalFull, Row
from sidecar.sessions.facts import read_fact
from sidecar.sessions.replay import Replay, begun_ms
from sidecar.sessions.senders import Senders
from sidecar.sessions.store import Applied, Fact, Store
from sidecar.tasks import told_to_stop

BATCH = 256
IDLE_CHECK_SECONDS = 2.0  # how often an idle applier asks whether Redis still has everything
FULL_SECONDS, EARLY_SECONDS = 0.5, 0.05
PATIENCE_MS = 3_000  # two heartbeats and some
BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX = 0.05, 5.0
SAVE_SECONDS, PRUNE_SECONDS = 1.0, 30.0
_CURSOR = "applier"
OK, DOWN = 1, 2
log = structlog.get_logger(__name__)


class _RedisRefusedError(Exception):
    """Redis answered, but does not take facts now: out of memory, loading, read-only."""


class Applier:
    """Applies `journal` to `store` until cancelled. `count(event, n)` is told what happens; see the counters' names.

    `clock_ms` is the clock that the proxy stamps records with; without it no row is too old to be applied again, and
    none waits for other replicas.
    """

    def __init__(
        self,
        journal: Journal,
        store: Store,
        *,
        count: Callable[[str, int], None] = lambda _event, _n: None,
        rng: random.Random | None = None,
        clock_ms: Callable[[], int] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.state = 0  # 0 unknown, OK, DOWN
        self.refusal: Exception | None = None  # why Redis, which may answer others, takes no facts
        self._journal = journal
        self._store = store
        self._count = count
        self._clock_ms = clock_ms
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311  jitter, not secrets
        self._cursor = 0
        self._early = False  # the row after the cursor waits for other replicas: it alone is asked for
        self._saved = (0, "")  # the cursor as saved, and in which generation
        self._facts = 0  # how many facts Redis had counted when it had all up to there
        self._saved_at = self._pruned_at = 0.0
        self._generation: str | None = None
        self._verified = False
        self._acknowledged: dict[str, int] = {}  # producer → last sequence that Redis is known to have had
        self._holes: set[tuple[str, int]] = set()  # (producer, sequence) whose predecessors are lost
        self._unreadable: dict[str, tuple[int, int]] = {}  # producer → its last unreadable row, what Redis has before
        self._replay: Replay | None = None  # while journals are applied again after a loss
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        self._senders = Senders()
        self._failures = 0
        store.pending_ms = self.pending_ms

    # -- what others ask ---------------------------------------------------------------------------------------

    def wake(self) -> None:
        """There are new rows."""
        self._wake.set()

    def backlog(self) -> int:
        """Rows not applied yet."""
        return max(self._journal.last_row() - self._cursor, 0)

    def pending_ms(self) -> int | None:
        """Event time of the oldest fact not applied; 0 while that cannot be known; None when nothing waits."""
        if not self._verified:
            return 0
        if self.backlog() == 0:
            return None
        try:
            rows = self._journal.after(self._cursor, BATCH)
        except JournalFull:
            return 0
        return min((begun_ms(row) for row in rows), default=None)

    async def applied(self, sequence: int) -> Applied:
        """What became of this journal's signal `sequence`; waits until it is applied."""
        return await self._senders.wait(sequence)

    async def drained(self, deadline: float) -> bool:
        """Wait until nothing waits, or until the loop's clock reads `deadline`; says which."""
        loop = asyncio.get_running_loop()
        while not self._verified or self.backlog():
            left = deadline - loop.time()
            if left <= 0:
                return False
            self._wake.set()
            self._progress.clear()
            try:
                async with asyncio.timeout(min(left, 0.2)):
                    await self._progress.wait()
            except TimeoutError:
                continue
        return True

    # -- the loop ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. Redis or the journal failing is waited out with capped backoff and jitter."""
        while not told_to_stop():
            try:
                worked = await self.step()
                if self.state != OK:
                    log.info("facts_applied", backlog=self.backlog())
                self.state, self.refusal, self._failures = OK, None, 0
                if not worked:
                    await self._idle()
            except (RedisError, _RedisRefusedError, JournalFull, OSError, TimeoutError) as error:
                await self._back_off(error)

    async def step(self) -> bool:
        """One batch; False when there was nothing to do. Raises what Redis or the disk raised."""
        if not self._verified:
            await self.verify()
        last_row = await asyncio.to_thread(self._journal.last_row)
        rows = await asyncio.to_thread(self._journal.after, self._cursor, 1 if self._early else BATCH)
        self._early = False
        if not rows:
            # A journal that was begun anew has numbers without rows: what is not there cannot wait.
            self._cursor = max(self._cursor, last_row)
            await self._take_turn(rows)
            return False
        turn = await self._take_turn(rows)
        if not turn:
            return True
        facts, kept = self._read(turn)
        patient_from_ms = None if self._clock_ms is None else self._clock_ms() - PATIENCE_MS
        answers = await self._store.apply_many(
            facts, own=self._journal.id, went=[row.went for row in kept], patient_from_ms=patient_from_ms
        )
        await self._settle(turn, dict(zip((row.row for row in kept), answers, strict=True)))
        await self._keep_house()
        return True

    async def _take_turn(self, rows: Sequence[Row]) -> Sequence[Row]:
        """In new data, only what no other replica has anything before; else all."""
        if self._replay is None:
            return rows
        rows = await self._replay.turn(rows)
        if self._replay.over:
            self._replay = None
        return rows

    async def _idle(self) -> None:
        await self._save()
        try:
            async with asyncio.timeout(IDLE_CHECK_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            await self.verify()
        self._wake.clear()

    async def _back_off(self, error: BaseException) -> None:
        if self.state != DOWN:
            log.warning("facts_wait", reason=repr(error), backlog=self.backlog())
        self.state = DOWN
        self.refusal = error if isinstance(error, RedisError | _RedisRefusedError) else None
        self._count("apply_failed", 1)
        # Redis may come back without what it had.
        self._verified = False
        pause = min(BACKOFF_SECONDS_MIN * 2**self._failures, BACKOFF_SECONDS_MAX)
        self._failures = min(self._failures + 1, 16)
        await self._sleep(pause * self._rng.uniform(0.5, 1.0))

    # -- reading and answers -----------------------------------------------------------------------------------

    def _read(self, rows: Sequence[Row]) -> tuple[list[tuple[Fact, int]], list[Row]]:
        facts: list[tuple[Fact, int]] = []
        kept: list[Row] = []
        for row in rows:
            previous = self._previous(row)
            try:
                fact = read_fact(row.kind, row.body)
            except ValueError as error:
                log.error("journal_row_unreadable", row=row.row, reason=type(error).__name__)
                self._count("journal_row_unreadable", 1)
                # The producer's next row names this one; Redis knows only the one before.
                self._unreadable[row.producer] = row.sequence, previous
                continue
            facts.append((fact, previous))
            kept.append(row)
        return facts, kept

    def _previous(self, row: Row) -> int:
        if (row.producer, row.sequence) in self._holes:
            return 0
        unreadable, before = self._unreadable.get(row.producer, (0, 0))
        return before if unreadable and row.previous == unreadable else row.previous

    async def _settle(self, rows: Sequence[Row], answers: dict[int, Applied]) -> None:
        """Move the cursor past what is final; then act on the first answer that is not."""
        stopped: tuple[Row, Applied] | None = None
        for row in rows:
            answer = answers.get(row.row)
            if answer is not None and not answer.final:
                stopped = stopped or (row, answer)
                continue
            if answer is not None:
                self._note(row, answer)
            if stopped is None:
                self._cursor = row.row
        await self._note_where(rows, answers)
        self._progress.set()
        if stopped is None:
            return
        row, answer = stopped
        if answer.status == "rewind":
            if not await self.verify():
                await self._catch_up(row.producer, (await self._store.marks([row.producer]))[row.producer])
        elif answer.status == "early":
            self._early = True
            self._count("observation_early", 1)
            await self._sleep(EARLY_SECONDS)
        elif answer.status == "full":
            self._count("outbox_full", 1)
            await self._sleep(FULL_SECONDS)
        else:
            raise _RedisRefusedError(answer.reason)

    async def _note_where(self, rows: Sequence[Row], answers: dict[int, Applied]) -> None:
        applied = ((row, answer.went) for row in rows if (answer := answers.get(row.row)) and answer.went)
        found = [(row.row, went) for row, went in applied if row.kind == "observation" and went != row.went]
        try:
            if found:
                await asyncio.to_thread(self._journal.note_where, found)
        except JournalFull:
            # They are applied. Should Redis lose them, they are stitched anew, as rows that nobody had applied are.
            self._count("notes_lost", len(found))

    def _note(self, row: Row, answer: Applied) -> None:
        self._acknowledged[row.producer] = max(self._acknowledged.get(row.producer, 0), row.sequence)
        self._holes.discard((row.producer, row.sequence))
        if answer.status == "refused":
            log.error("fact_refused", row=row.row, reason=answer.reason)
        elif answer.status == "late":
            log.warning("signal_late", row=row.row)
        elif answer.status == "ambiguous":
            log.warning("signal_ambiguous", row=row.row)
        self._count(f"{row.kind}_{answer.status}", 1)
        log.debug("fact_applied", kind=row.kind, row=row.row, status=answer.status, session_id=answer.session_id)
        if row.kind == "signal" and row.producer == self._journal.id:
            self._senders.tell(row.sequence, answer)

    # -- going back --------------------------------------------------------------------------------------------

    async def verify(self) -> bool:
        """Does Redis still have what it had? If not, go back as far as it takes; True when that is the beginning."""
        generation = await self._store.generation()
        if self._generation is None:
            await self._resume()
        if generation != self._generation:
            await self._store.hold_others(self._journal.id)
            if self._generation is not None:
                log.error("redis_data_lost", rows=self._journal.last_row())
                self._count("redis_data_lost", 1)
                self._replay = Replay(self._store, self._journal.id, self._journal.last_row(), count=self._count)
            self._generation, self._cursor, self._saved, self._facts = generation, 0, (0, ""), 0
            self._store.known_generation = generation
            self._acknowledged.clear()
            self._holes.clear()
            self._unreadable.clear()
            await self._hold()
            self._verified = True
            return True
        self._store.known_generation = generation
        for producer, mark in (await self._store.marks(list(self._acknowledged))).items():
            if mark is None or mark < self._acknowledged[producer]:
                await self._catch_up(producer, mark)
        self._verified = True
        return False

    async def _resume(self) -> None:
        """Where a former process left off; the rows before say what Redis should have."""
        saved = await asyncio.to_thread(self._journal.meta, _CURSOR)
        if saved is None:
            return
        document = orjson.loads(saved)
        self._generation = document["generation"]
        self._cursor = min(document["row"], self._journal.last_row())
        self._saved = (self._cursor, self._generation)
        self._facts = document.get("facts", 0)
        self._store.lived(document.get("peers", ()))
        if self._clock_ms is not None:
            # What is too old to be kept is too old to be applied again, however long this sidecar was away.
            with contextlib.suppress(JournalFull):
                await asyncio.to_thread(self._journal.prune, self._cursor, self._clock_ms())
        for row in await asyncio.to_thread(self._journal.after, max(self._cursor - BATCH, 0), BATCH):
            if row.row <= self._cursor:
                self._acknowledged[row.producer] = max(self._acknowledged.get(row.producer, 0), row.sequence)

    async def _catch_up(self, producer: str, mark: int | None) -> None:
        """Go back to what Redis has of the producer: up to `mark`, or, when its mark is gone, what was known before.

        Redis has the data of when the cursor was saved, unless it counts fewer facts now. Then what was final stays
        final, and the mark is put back: applied again, the same exchanges would get new numbers and be charged again.
        """
        if mark is None:
            mark = 0
            if self._saved[0] and await self._store.facts() >= self._facts:
                mark = await asyncio.to_thread(self._journal.last_up_to, producer, self._saved[0])
            if mark > 0:
                log.warning("mark_restored", producer=producer, mark=mark)
                self._count("mark_restored", 1)
                await self._store.restore_mark(producer, mark)
                if mark >= self._acknowledged.get(producer, 0):
                    return
        await self._rewind(producer, mark)

    async def _rewind(self, producer: str, mark: int) -> None:
        """Back to the producer's first row after `mark`. A row missing from the journal is a hole, and passed over."""
        self._acknowledged[producer] = mark
        first = await asyncio.to_thread(self._journal.first_after, producer, mark)
        if first is None:
            self._hole(producer, mark, None)
            self._count("rewind", 1)
            return
        for row in await asyncio.to_thread(self._journal.after, first - 1, 1):
            if self._previous(row) > mark:
                self._hole(producer, mark, row.sequence)
                self._holes.add((producer, row.sequence))
        self._cursor = min(self._cursor, first - 1)
        self._count("rewind", 1)
        await self._hold()

    def _hole(self, producer: str, mark: int, sequence: int | None) -> None:
        log.error("facts_lost", producer=producer, after=mark, until=sequence)
        self._count("facts_lost", 1)

    async def _hold(self) -> None:
        """Hold back the replica's mark before anything is applied again, so that no old deadline fires meanwhile."""
        rows = await asyncio.to_thread(self._journal.after, self._cursor, BATCH)
        if rows:
            mark_ms = min(begun_ms(row) for row in rows)
            await self._store.heartbeat(self._journal.id, mark_ms, mark_ms)

    # -- housekeeping ------------------------------------------------------------------------------------------

    async def _keep_house(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._saved_at >= SAVE_SECONDS:
            self._saved_at = now
            await self._save()
        if now - self._pruned_at >= PRUNE_SECONDS:
            self._pruned_at = now
            newest_ms = self._journal.newest_ms
            now_ms = newest_ms if self._clock_ms is None else min(newest_ms, self._clock_ms())
            await asyncio.to_thread(self._journal.prune, self._cursor, now_ms)

    async def _save(self) -> None:
        """Remember the cursor. An old one costs only repetitions: what cannot be saved now is saved later."""
        position = self._cursor, self._generation or ""
        if position == self._saved:
            return
        try:
            # In this order: what is up to the cursor is counted.
            facts = await self._store.facts()
            document = {"row": position[0], "generation": position[1], "facts": facts, "peers": self._store.live()}
            await asyncio.to_thread(self._journal.set_meta, _CURSOR, orjson.dumps(document).decode())
        except JournalFull as error:
            log.warning("cursor_not_saved", reason=str(error))
            self._count("cursor_not_saved", 1)
            return
        self._saved, self._facts = position, facts

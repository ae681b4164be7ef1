"""A candidate plan, judged beside the live one on live traffic; nothing of it is ever posted.

How it works. Every exchange that the live plan judged is observed once more under the candidate, and every signal is
taken a second time, into sessions of their own: the same scripts, in the same Redis, under a tenant's name that no
deployment can have. So timers, settling and returns follow the candidate's terms. What those sessions would post is
thrown away; `report` compares them with the live ones.

It must not cost the live side anything: facts wait in memory, at most 10,000 of them, and more are dropped and counted;
Redis failing is waited out. A killed observer loses what waited here: a comparison may miss a fact, an invoice never.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import structlog
from redis.exceptions import RedisError

from sidecar.intake.signal import Signal
from sidecar.observer.observation import Observation
from sidecar.observer.observe import Observing
from sidecar.observer.reader import RawExchange
from sidecar.policy.current import CurrentPlan
from sidecar.sessions.differences import Differences, differences
from sidecar.sessions.store import Fact, Store
from sidecar.sessions.sweeper import Sweeper
from sidecar.tasks import told_to_stop

WAITING_MAX = 10_000
BATCH = 256
IDLE_SECONDS = 0.5
COMPARE_SECONDS = 10.0
BACKOFF_SECONDS = 5.0
COMPARED_MAX = 1_000  # sessions of each side, the newest
_SUFFIX = "~candidate"  # no tenant may have it in its name

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """What the candidate would have said, as of now."""

    plan: CurrentPlan
    differences: Differences
    dropped: int

    def to_dict(self) -> dict[str, Any]:
        """As `GET /v1/candidate` shows it."""
        return {
            "plan": {"name": self.plan.loaded.name, "digest": self.plan.loaded.digest},
            "problems": self.plan.problems,
            "compared_at_most": COMPARED_MAX,
            "dropped": self.dropped,
            **self.differences.to_dict(),
        }


class Candidate:
    """Judges under `plan` whatever it is offered. `observing` is an observer of its own, which counts nothing."""

    def __init__(
        self,
        live: Store,
        plan: CurrentPlan,
        observing: Observing,
        *,
        producer: str,
        count: Callable[[str, int], None] = lambda _event, _n: None,
    ) -> None:
        self.plan = plan
        self.store = Store(live.redis, live.tenant + _SUFFIX)
        self.store.pending_ms = self._pending_ms
        self.dropped = 0
        self.compared: dict[str, int] = {}  # as `report` last found it, for the metrics
        self._live = live
        self._observing = observing
        self._producer = producer
        self._count = count
        self._waiting: deque[Fact] = deque()
        self._numbered = 0  # the last signal; numbers go on by their arrival, past a restart too
        self._wake = asyncio.Event()

    # -- what is offered -----------------------------------------------------------------------------------------

    def exchange(self, raw: RawExchange) -> None:
        """An exchange that the live plan has judged. Never raises."""
        try:
            observation = self._observing.observe(raw, self.plan.loaded)
        except Exception:
            log.exception("candidate_failed", sequence=raw.sequence)
            self._count("candidate_failed", 1)
            return
        if observation is not None:
            self._offer(observation)

    def signal(self, signal: Signal) -> None:
        """A signal that is durable for the live plan; or one that only the candidate's rules make of a webhook.

        It gets a number of this side's own, since the two plans may make more or fewer signals of the same.
        """
        self._numbered = max(self._numbered + 1, signal.at_ms * 1000)
        self._offer(replace(signal, producer=self._producer + _SUFFIX, sequence=self._numbered))

    def _offer(self, fact: Fact) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self.dropped += 1
            self._count("candidate_dropped", 1)
            return
        self._waiting.append(fact)
        self._wake.set()

    # -- judging -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled: judge, fire the candidate's timers, compare."""
        log.info("candidate_started", plan=self.plan.loaded.name)
        sweeper = Sweeper(self.store, count=lambda event, n: self._count(f"candidate_{event}", n))
        async with asyncio.TaskGroup() as group:
            for part in (self._judge(), sweeper.run(), self._compare()):
                group.create_task(part)

    async def _judge(self) -> None:
        while not told_to_stop():
            try:
                worked = await self.step()
            except (RedisError, OSError, TimeoutError) as error:
                self._count("candidate_waits", 1)
                log.debug("candidate_waits", reason=repr(error))
                await asyncio.sleep(BACKOFF_SECONDS)
                continue
            if not worked:
                self._wake.clear()
                try:
                    async with asyncio.timeout(IDLE_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def step(self) -> bool:
        """One batch; False when nothing waited. What Redis did not take comes again: it knows what it has."""
        batch = [self._waiting[index] for index in range(min(BATCH, len(self._waiting)))]
        if batch:
            # No fact names its predecessor: what was dropped here is missed, never waited for.
            answers = await self.store.apply_many([(fact, 0) for fact in batch], own=self._producer)
            if any(answer.status == "error" for answer in answers):
                raise RedisError(next(answer.reason for answer in answers if answer.status == "error"))
            for _ in batch:
                self._waiting.popleft()
        await self.store.redis.xtrim(self.store.key("outbox"), maxlen=0, approximate=False)
        return bool(batch)

    async def beat(self, mark_ms: int, now_ms: int) -> None:
        """As the live store's heartbeat, so that the candidate's timers fire by the same clock."""
        await self.store.heartbeat(self._producer, mark_ms, now_ms)

    async def leave(self) -> None:
        """A clean shutdown."""
        await self.store.leave(self._producer)

    def _pending_ms(self) -> int | None:
        """Event time of the oldest fact that waits."""
        return min((_begun_ms(fact) for fact in self._waiting), default=None)

    def follow_plan(self) -> None:
        """Read the candidate's file again if it changed; its sessions begin anew then."""
        refused = self.plan.refused
        if self.plan.refresh():
            log.info("candidate_changed", plan=self.plan.loaded.name, digest=self.plan.loaded.digest)
        elif self.plan.refused > refused:
            self._count("candidate_refused", 1)
            log.error("candidate_refused", problems=self.plan.problems)

    # -- comparing -----------------------------------------------------------------------------------------------

    async def _compare(self) -> None:
        """Now and then, for the metrics; and whether the plan's file changed."""
        while not told_to_stop():
            self.follow_plan()
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                found = (await self.report()).differences
                self.compared = {"candidate_same": found.same, "candidate_different": found.different}
            await asyncio.sleep(COMPARE_SECONDS)

    async def report(self) -> Report:
        """The newest sessions of both, compared."""
        judged = [view for view in await self.store.list(COMPARED_MAX) if view.terms.digest == self.plan.loaded.digest]
        since_ms = min((view.started_ms for view in judged), default=0)
        ours = [view for view in await self._live.list(COMPARED_MAX) if view.started_ms >= since_ms]
        if len(ours) == COMPARED_MAX:
            # The live side goes back less far than the candidate's: compare what both have.
            since_ms = min(view.started_ms for view in ours)
            judged = [view for view in judged if view.started_ms >= since_ms]
        return Report(self.plan, differences(ours, judged), self.dropped)


def _begun_ms(fact: Fact) -> int:
    return fact.started_ms if isinstance(fact, Observation) else fact.at_ms

"""Composition: which parts run in which process, in which order they start, and how they drain.

`run` is `sidecar run`: it checks everything, then becomes the proxy by exec, so that nothing of what checking needed
stays in the memory of the hot path. The proxy starts the children listed in `proxy_config`; the observer among them is
this module again, `python -m sidecar.app`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import structlog
from redis.exceptions import RedisError

from sidecar import logs, preflight
from sidecar.admin import measured
from sidecar.admin.metrics import Metrics
from sidecar.admin.server import AdminParts, AdminServer
from sidecar.admin.vitals import Vitals
from sidecar.connections import connect_redis
from sidecar.delivery.courier import Courier
from sidecar.delivery.event import Event
from sidecar.handover import HandOver
from sidecar.observer.apis.call import Call
from sidecar.observer.exchange import Exchange
from sidecar.observer.journal import Journal, JournalFull
from sidecar.observer.observe import Observing
from sidecar.observer.pipeline import Pipeline, now_ms
from sidecar.observer.reader import ExchangeReader
from sidecar.otel import wanted
from sidecar.otel.telemetry import Telemetry
from sidecar.policy.current import CurrentPlan
from sidecar.proxy_config import proxy_config
from sidecar.remembered import PlanMemory, Remembered
from sidecar.sessions.applier import Applier
from sidecar.sessions.candidate import Candidate
from sidecar.sessions.store import Store
from sidecar.sessions.sweeper import Sweeper
from sidecar.settings import Settings, SettingsError, load_settings
from sidecar.settings_types import EMBEDDED
from sidecar.steadyclock import SteadyClock
from sidecar.tasks import told_to_stop
from sidecar.wire.lag import watch_loop
from sidecar.wire.ring import RingReader
from sidecar.wire.status import Slot

BEAT_SECONDS = 1.0
PLAN_POLL_SECONDS = 2.0
PROBE_SECONDS = 10.0
FORMER_OBSERVER_SECONDS = 60.0
TELEMETRY_SECONDS = 2.0  # for what is left of spans at the end
OK, DOWN = 1, 2

log = structlog.get_logger(__name__)


def run(environ: Mapping[str, str]) -> NoReturn:
    """`sidecar run`: check everything, then become the proxy. Raises SettingsError when something must change."""
    try:
        settings, warnings = load_settings(environ)
    except SettingsError as error:
        # Everything that must change is said at once, what the right variables name included.
        more = preflight.examine(error.rest, environ)[1] if error.rest is not None else []
        raise SettingsError([*error.problems, *(one for one in more if one not in error.problems)]) from None
    logs.configure(settings.log_level, settings.log_format)
    plan, more = preflight.check(settings, environ)
    lock_fd = preflight.hold(settings)
    with contextlib.suppress(OSError):  # a full disk is no reason to refuse traffic
        preflight.remember_plan(settings, plan)
    for warning in [*warnings, *more, *wanted.problems(environ)]:
        log.warning("setting_warning", problem=warning)
    config = json.dumps(proxy_config(settings) | {"lock_fd": lock_fd})
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "sidecar.proxy", config])  # noqa: S606 - ourselves


class ObserverApp:
    """Process 2: the parts, wired."""

    def __init__(self, settings: Settings, plan: CurrentPlan, candidate: CurrentPlan | None = None) -> None:
        self.settings = settings
        self.runtime = preflight.runtime_dir(settings)
        self.stopping = asyncio.Event()
        self._starting_again = False
        self.clock = SteadyClock()
        # A former observer may still be handing over; a killed one has let go already.
        self.ring = RingReader(str(self.runtime / "queue"), timeout_s=FORMER_OBSERVER_SECONDS)
        self.status = self.ring.status
        self.status.set(Slot.OBSERVER_PID, os.getpid())
        self.plan = plan
        self.candidate_plan = candidate
        self.candidate: Candidate | None = None  # made with the pipeline
        self.journal = Journal(
            settings.data_dir / "journal.sqlite3",
            hours=settings.journal_hours,
            bytes_max=settings.journal_bytes,
        )
        embedded = self.runtime / "redis.sock" if settings.redis_url == EMBEDDED else None
        self.redis = connect_redis(settings.redis_url, embedded_socket=embedded)
        self.store = Store(
            self.redis,
            settings.tenant,
            outbox_max=settings.outbox_max,
            journal_hours=settings.journal_hours,
        )
        self.counters: dict[str, int] | None = None  # until Redis has answered
        self.vitals = Vitals(now_ms)
        self.metrics = self._metrics()
        self.metrics.plan(plan.loaded.name, plan.loaded.digest)
        self.applier = Applier(self.journal, self.store, count=self.metrics.count, clock_ms=now_ms)
        self.sweeper = Sweeper(self.store, count=self.metrics.count)
        self.plan_memory = PlanMemory(settings, self.metrics.count)
        self.remembered = Remembered(
            self.journal,
            self.store,
            queue=self.ring.producer,
            was_read=self.ring.acknowledged > 0,
            count=self.metrics.count,
            start_again=self._start_again,
        )
        token = settings.billing_token
        self.courier = Courier(
            self.store,
            billing_url(settings),
            token=token.get_secret_value() if token else None,
            # The same after a restart, so that it goes on with what it had taken.
            name=f"{socket.gethostname()}-{self.journal.id[:12]}",
            count=self.metrics.count,
            posted=self.metrics.posted,
            delivered=self._delivered,
        )
        self.telemetry = Telemetry(
            os.environ,
            upstreams=[(route.upstream.host, route.upstream.port) for route in settings.all_routes],
            instance=self.journal.id,
            count=self.metrics.count,
        )
        self._show_gauges()

    def _routes(self) -> list[str]:
        return [str(route.listen) for route in self.settings.all_routes]

    def _metrics(self) -> Metrics:
        return Metrics(
            self.status,
            lambda: self.counters,
            tenant=self.settings.tenant,
            routes=self._routes(),
            webhooks=self.settings.webhook_endpoints(),
            started_ms=now_ms(),
        )

    def _show_gauges(self) -> None:
        gauge = self.metrics.gauge
        gauge(measured.QUEUE_USED, lambda: self.ring.used_bytes)
        gauge(measured.QUEUE_CAPACITY, lambda: self.ring.capacity)
        gauge(measured.JOURNAL_BYTES_MAX, lambda: self.settings.journal_bytes)
        gauge(measured.MARK_LAG, self.sweeper.lag_seconds)
        gauge(measured.MARK_HELD, lambda: self.sweeper.holder == self.journal.id)
        self.vitals.show(self.metrics)

    async def run(self) -> None:
        """Until SIGTERM, then hand over: the queue's rest, what can be applied, what can be delivered."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_plan, True)
        given = self.settings.hash_key
        hash_key = given.get_secret_value().encode() if given else await self.remembered.hash_key()
        pipeline = self._pipeline(hash_key)
        admin = AdminServer(self._admin_parts(hash_key))
        await admin.start(self.runtime / "observer.sock")
        await self.remembered.settle()
        await self._beat(pipeline)
        _step_back()
        log.info("observer_started", producer=self.ring.producer, plan=self.plan.loaded.name, pid=os.getpid())
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(pipeline.run(self.stopping))
            background = [
                group.create_task(part)
                for part in (
                    self.applier.run(),
                    watch_loop(self.status, Slot.OBSERVER_LAG_2MS),
                    self._every(BEAT_SECONDS, lambda: self._beat(pipeline)),
                    self._every(PLAN_POLL_SECONDS, self._follow_plan),
                    self._every(PROBE_SECONDS, self.courier.probe),
                    self.sweeper.run(),
                    self.courier.run(),
                    *([self.candidate.run()] if self.candidate else []),
                )
            ]
            await reading
            await self._hand_over(pipeline, admin, background)
        await asyncio.to_thread(self.telemetry.close, TELEMETRY_SECONDS)
        self.ring.close()
        self.journal.close()
        log.info("observer_stopped")

    def _pipeline(self, hash_key: bytes) -> Pipeline:
        observing = Observing(
            tenant=self.settings.tenant,
            hash_key=hash_key,
            session_keys=self.settings.session_keys,
            customer=self.settings.customer,
            shadow=self.settings.mode == "shadow",
            on_count=self.metrics.count,
            listeners=self._routes(),
            on_exchange=self._exchange,
        )
        if self.candidate_plan is not None:
            plan, producer, count = self.candidate_plan, self.ring.producer, self.metrics.count
            self.candidate = Candidate(self.store, plan, observing.quietly(), producer=producer, count=count)
        reader = ExchangeReader(
            self.ring,
            self.runtime / "spill",
            spill_bytes_max=self.settings.queue_bytes,
        )
        beside = self.candidate.exchange if self.candidate else None
        return Pipeline(
            reader,
            observing,
            self.journal,
            self.plan,
            wake=self.applier.wake,
            count=self.metrics.count,
            beside=beside,
            took=self.metrics.observed,
        )

    def _exchange(self, exchange: Exchange, call: Call | None, conversation: str | None) -> None:
        self.metrics.exchange(exchange)
        self.telemetry.exchange(exchange, call, conversation)

    def _delivered(self, event: Event) -> None:
        self.telemetry.outcome(event)

    def _admin_parts(self, hash_key: bytes) -> AdminParts:
        token = self.settings.admin_token
        return AdminParts(
            tenant=self.settings.tenant,
            hash_key=hash_key,
            journal=self.journal,
            store=self.store,
            applier=self.applier,
            plan=self.plan,
            metrics=self.metrics,
            token=token.get_secret_value() if token else None,
            candidate=self.candidate,
            webhooks=self.settings.webhook_endpoints(),
            webhook_base_url=self.settings.webhook_base_url,
        )

    async def _beat(self, pipeline: Pipeline) -> None:
        """Say on the status page that this process lives, and in Redis how far it has come."""
        now = now_ms()
        self.status.set(Slot.OBSERVER_BEAT_MS, now)
        await self.remembered.settle()
        self.status.set(Slot.JOURNAL_STATE, OK if pipeline.journal_ok and self.journal.opened else DOWN)
        self.status.set(Slot.JOURNAL_BACKLOG, self.applier.backlog())
        self.status.set(Slot.PLAN_STATE, DOWN if self.plan.problems else OK)
        self.status.set(Slot.BILLING_STATE, self.courier.state)
        # Order matters: an exchange moves from the queue to the journal, never back.
        mark_ms = self.vitals.unread_since_ms = pipeline.mark_ms(self.clock.believe(now, time.monotonic()))
        pending_ms = self.applier.pending_ms()
        self.vitals.facts_wait(self.applier.backlog(), pending_ms)
        with contextlib.suppress(JournalFull):
            self.vitals.journal_bytes = self.journal.size_bytes()
        if pending_ms is not None:
            mark_ms = min(mark_ms, pending_ms)
        try:
            async with asyncio.timeout(BEAT_SECONDS * 3):
                dropped = self.status.get(Slot.RECORDS_DROPPED) + self.status.get(Slot.SPILL_DROPPED)
                if self.journal.opened:  # before that, under what name it would beat is not known
                    asked = time.perf_counter()
                    generation = await self.store.heartbeat(self.journal.id, mark_ms, now, dropped=dropped)
                    self.metrics.redis_answered(time.perf_counter() - asked)
                    await self.remembered.keep_hash_key(generation)
                counters = await self.store.counters()
                if self.candidate:
                    await self.candidate.beat(mark_ms, now)
                    counters |= self.candidate.compared
                self.counters = counters
                self.vitals.outbox = await self.store.outbox_state()
                self.status.set(Slot.OUTBOX_LENGTH, self.vitals.outbox.length)
            self._redis_is(DOWN if self.applier.refusal else OK, self.applier.refusal)
        except (RedisError, OSError, TimeoutError) as error:
            self._redis_is(DOWN, error)

    def _redis_is(self, state: int, error: BaseException | None = None) -> None:
        if self.status.get(Slot.REDIS_STATE) != state:
            self.status.set(Slot.REDIS_STATE, state)
            self.status.set(Slot.REDIS_SINCE_MS, now_ms())
            if state == OK:
                log.info("redis_up")
            else:
                log.warning("redis_down", reason=repr(error))

    async def _follow_plan(self) -> None:
        self._reload_plan(force=False)
        self.plan_memory.keep()

    def _start_again(self) -> None:
        self._starting_again = True
        self.stopping.set()

    def _reload_plan(self, force: bool = True) -> None:  # noqa: FBT001, FBT002 - a signal handler's argument
        refused, broken = self.plan.refused, bool(self.plan.problems)
        if self.plan.refresh(force=force):
            self.plan_memory.keep(self.plan.loaded)
            self.metrics.plan(self.plan.loaded.name, self.plan.loaded.digest)
            log.info("plan_in_force", plan=self.plan.loaded.name, digest=self.plan.loaded.digest)
        elif broken and not self.plan.problems:
            log.info("plan_right_again", plan=self.plan.loaded.name)
        if self.plan.refused > refused:
            self.metrics.count("plan_refused")
            log.error("plan_refused", problems=self.plan.problems)

    async def _every(self, seconds: float, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while not told_to_stop():
            await act()
            await asyncio.sleep(seconds)

    async def _hand_over(self, pipeline: Pipeline, admin: AdminServer, background: list[asyncio.Task[None]]) -> None:
        """After the queue is read up: apply and deliver what can be within the time that is left."""
        hand_over = HandOver(
            producer=self.journal.id,
            applier=self.applier,
            store=self.store,
            courier=self.courier,
            beat=lambda: self._beat(pipeline),
            close_intake=admin.close,
            # One that is to be started again at once has traffic going on.
            emptied=lambda: not self._starting_again and pipeline.emptied(now_ms()),
            background=background,
        )
        left = await hand_over.run(max(self.settings.drain_seconds / 2, 4.0))
        if left and self.candidate:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                await self.candidate.leave()


def billing_url(settings: Settings) -> str | Callable[[], str | None]:
    """The base URL; for the embedded service a function that reads where it listens, since the port may be any."""
    if settings.billing_url != EMBEDDED:
        return settings.billing_url
    path = settings.data_dir / "billing.json"

    def address() -> str | None:
        try:
            return f"http://{json.loads(path.read_text(encoding='utf-8'))['address']}"
        except (OSError, ValueError, KeyError):
            return None

    return address


def _step_back() -> None:
    """Lowest priority, from before the first copy is read on: the proxy's needs come first.

    Not earlier: on a busy machine the lowest priority gets a hundredth of a core, and the half second of work that a
    start is would keep signals' senders waiting for most of a minute.

    Where the kernel groups processes by session (sched(7), autogroup), niceness counts inside a group only, and the
    observer runs in a session of its own: the group must step back too.
    """
    os.nice(19)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("19", encoding="ascii")


def observe() -> int:
    """`python -m sidecar.app`: the observer process, started by the proxy."""
    settings, _ = load_settings(os.environ)
    logs.configure(settings.log_level, settings.log_format)
    judge = partial(preflight.retention, settings)
    try:
        loaded = preflight.read_plan(settings)
        problems = judge(loaded)
    except SettingsError as error:
        problems = error.problems
    if problems:
        # The file broke after the start: a restarted observer must not stay down for it.
        log.error("plan_refused_at_start", problems=problems)
        loaded = preflight.last_good_plan(settings)
    plan = CurrentPlan(loaded, settings.plan, problems, judge=judge, former=preflight.former_plans(settings))

    candidate = None
    try:
        candidate = preflight.read_candidate(settings)
    except SettingsError as error:
        log.error("candidate_refused_at_start", problems=error.problems)

    async def run_app() -> None:
        await ObserverApp(settings, plan, candidate).run()

    asyncio.run(run_app())
    return 0


if __name__ == "__main__":
    sys.exit(observe())

"""One conversation on the real parts, under a clock that only the test moves.

Before each step the clock's time is told to the store as a replica's heartbeat would tell it, and the sweeper fires
what is due; so a timer fires here exactly when it would with live traffic. After the last step the clock runs on until
nothing is open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.billing.rating.account import Account, Customer, CustomerVersion, Row
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.usage import RatedPlan
from sidecar.delivery.event import outcome_event
from sidecar.identity import content_digest, key
from sidecar.intake.signal import Signal
from sidecar.intake.signals import build_signal, parse_signal
from sidecar.intake.webhooks import endpoints
from sidecar.observer.observe import Observing
from sidecar.observer.reader import RawExchange
from sidecar.plantest.conversation import Expected, Step, duration_ms, plain
from sidecar.plantest.loading import Case
from sidecar.plantest.seen import Seen, exact_event
from sidecar.plantest.traffic import Exchange, Talk
from sidecar.sessions.explain import explain
from sidecar.sessions.outcome import read_outcome
from sidecar.sessions.store import Fact, Store
from sidecar.sessions.view import SessionView
from sidecar.wire.records import EndFlag

HASH_KEY = b"sidecar plan test"
EXCHANGE_MS = 1_000
BETWEEN_TURNS_MS = 10_000
SESSIONS_MAX = 100
TIMERS_MAX = 1_000
SENDER = "tests"


class StageError(RuntimeError):
    """A step could not be played; the message says why."""


@dataclass(frozen=True, slots=True)
class Look:
    """How things stood when a step, or the end (None), said what to expect."""

    step: int | None
    expected: list[Expected]
    seen: tuple[Seen, ...]


class Stage:
    """Plays one case. The store's tenant must be the case's own."""

    def __init__(self, case: Case, store: Store) -> None:
        self._case = case
        self._store = store
        self._now_ms = case.conversation.start_ms
        self._sequence: Counter[str] = Counter()
        self._talked = False
        self._numbers: Counter[str] = Counter()
        self.notes: list[str] = []
        self._observing = Observing(
            store.tenant,
            HASH_KEY,
            case.locating.session_keys,
            case.locating.customer,
            case.conversation.shadow,
            self._count,
            listeners=["test"],
        )
        self._talk = Talk(case.conversation.api, self._headers())

    async def play(self) -> list[Look]:
        """Every step in order, then the end; what was to be seen at each place where something is expected."""
        looks = []
        for number, step in enumerate(self._case.conversation.steps):
            await self._pass_time(step)
            await self._do(step)
            if step.expect is not None:
                looks.append(Look(number, step.expect, await self._seen()))
        await self._finish()
        looks.append(Look(None, self._case.conversation.expect, await self._seen()))
        return looks

    # -- time --------------------------------------------------------------------------------------------------

    async def _pass_time(self, step: Step) -> None:
        talks = step.user is not None or step.agent is not None or bool(step.tools) or step.request is not None
        pause_ms = BETWEEN_TURNS_MS if talks and self._talked else 0
        for given in (step.after, step.wait):
            pause_ms = duration_ms(given) if given is not None else pause_ms
        self._talked = self._talked or talks
        await self._until(self._now_ms + pause_ms)

    async def _until(self, now_ms: int) -> None:
        self._now_ms = now_ms
        await self._store.heartbeat(SENDER, now_ms, now_ms)
        for _ in range(TIMERS_MAX):
            if not (await self._store.sweep()).more:
                return

    async def _finish(self) -> None:
        """On to each next deadline until no session is open."""
        for _ in range(TIMERS_MAX):
            waiting = [view.deadline_ms for view in await self._store.list(SESSIONS_MAX) if view.is_open]
            if not waiting:
                return
            await self._until(max(self._now_ms, min(waiting)))
        raise StageError("timers without end")

    # -- steps -------------------------------------------------------------------------------------------------

    async def _do(self, step: Step) -> None:
        if step.signal is not None:
            await self._signal(step)
        elif step.webhook is not None:
            await self._webhook(step.webhook.source, step.webhook.headers, plain(step.webhook.payload))
        elif step.request is not None:
            await self._exchange(self._talk.raw(step.request))
        elif step.user is not None or step.agent is not None or step.tools:
            for exchange in self._talk.turn(step):
                await self._exchange(exchange)

    async def _exchange(self, exchange: Exchange) -> None:
        number = self._sequence["queue"] + 1
        started_ms = self._now_ms
        flags = EndFlag(0)
        if exchange.cut:
            flags |= EndFlag.ABORTED_BY_ORIGIN
        if exchange.dropped:
            flags |= EndFlag.DROPPED
        raw = RawExchange(
            producer="queue",
            sequence=number,
            first=number,
            listener=0,
            started_ms=started_ms,
            at_ms=started_ms + EXCHANGE_MS,
            request=exchange.request,
            response=exchange.response,
            flags=flags,
            finished=True,
        )
        await self._until(started_ms + EXCHANGE_MS)
        observation = self._observing.observe(raw, self._case.plan)
        if observation is None:
            self.notes.append(f"exchange {number} belongs to no session: {', '.join(self._numbers) or 'no id'}")
            return
        await self._apply("queue", observation)

    async def _signal(self, step: Step) -> None:
        if step.signal is None:
            return
        raw = step.signal.body(self._case.conversation.known_as, self._sequence["signals"] + 1)
        numbered = build_signal(
            parse_signal(raw),
            producer="signals",
            tenant=self._store.tenant,
            at_ms=self._now_ms,
            terms=self._case.plan.terms,
            hash_key=HASH_KEY,
            raw=raw,
        )
        await self._apply("signals", numbered(self._sequence["signals"] + 1))

    async def _webhook(self, source: str, headers: Mapping[str, str], payload: Any) -> None:
        endpoint = endpoints({source: ()}, self._case.locating.webhook_conversations)[source]
        facts = endpoint.facts(payload, {name.lower(): text for name, text in headers.items()})
        digest = content_digest(HASH_KEY, repr(payload))
        mapped = self._case.plan.rules.judge_webhook(facts, digest=digest)
        if not mapped:
            self.notes.append(f"the webhook of {source} matched no rule")
        for each in mapped:
            number = self._sequence["signals"] + 1
            signal = Signal(
                producer="signals",
                sequence=number,
                tenant=self._store.tenant,
                source=source,
                id=f"webhook-{number}",
                at_ms=self._now_ms,
                effect=each.effect,
                terms=self._case.plan.terms,
                alias=key(self._store.tenant, each.kind, each.value),
            )
            await self._apply("signals", signal)

    async def _apply(self, producer: str, fact: Fact) -> None:
        previous = self._sequence[producer]
        self._sequence[producer] = fact.sequence
        [applied] = await self._store.apply_many([(fact, previous)], own=SENDER)
        if applied.status == "waiting":
            self.notes.append("a signal came before its session and waited")
        elif applied.status == "duplicate":
            self.notes.append("a signal came twice, with one effect")
        elif applied.status != "applied":
            raise StageError(f"the store answers {applied.status}: {applied.reason}")

    def _headers(self) -> dict[str, str]:
        case = self._case.conversation
        headers = {} if case.without_id else {"x-session-id": case.known_as}
        return headers | ({"x-customer-id": case.customer} if case.customer else {})

    def _count(self, name: str) -> None:
        self._numbers[name] += 1

    # -- what came out -----------------------------------------------------------------------------------------

    async def _seen(self) -> tuple[Seen, ...]:
        listed = reversed(await self._store.list(SESSIONS_MAX))
        views = [view for each in listed if (view := await self._store.session(each.id)) is not None]
        events = await self._events()
        counted = self._counted(events)
        return tuple(self._one(view, events, counted) for view in views)

    async def _events(self) -> list[dict[str, Any]]:
        """Everything posted so far, as the billing API would have got it."""
        entries = await self._store.redis.xrange(self._store.key("outbox"))
        bodies = [fields[b"body"] for _, fields in entries if fields[b"kind"] == b"outcome"]
        return [exact_event(outcome_event(read_outcome(body)).body) for body in bodies]

    def _one(self, view: SessionView, events: Iterable[dict[str, Any]], counted: Mapping[str, _Uses]) -> Seen:
        mine = [event for event in events if event["data"]["session_id"] == view.id]
        uses = counted.get(view.id, _Uses(set(), set()))
        return Seen.of(view, mine, sorted(uses.metrics), sorted(uses.charges), explain(view))

    def _counted(self, events: Iterable[dict[str, Any]]) -> dict[str, _Uses]:
        """By session: which metrics count it and which charges it feeds, as an invoice would have it."""
        rated = RatedPlan(self._case.plan.plan)
        rows = tuple(_row(event) for event in events)
        found: dict[str, _Uses] = {}
        for name in sorted({row.customer for row in rows}):
            facts = plain(self._case.conversation.customer_facts)
            customer = Customer(name, (CustomerVersion(0, facts),))
            account = Account(customer, rows, shadow=self._case.conversation.shadow)
            standing: dict[Period, list[Row]] = {}
            for row in account.chargeable:
                if row.id not in account.gone:
                    standing.setdefault(row.period, []).append(row)
            earlier: list[Row] = []
            for period in sorted(standing):
                self._note_uses(rated, customer, earlier, standing[period], found)
                earlier += standing[period]
        return found

    @staticmethod
    def _note_uses(
        rated: RatedPlan, customer: Customer, earlier: list[Row], live: list[Row], found: dict[str, _Uses]
    ) -> None:
        before, now = ([(row, _facts(row, customer)) for row in rows] for rows in (earlier, live))
        for name, meter in rated.meters.items():
            for use in meter.units(meter.passing(before, now)):
                if use.units > 0:
                    found.setdefault(use.row.session_id, _Uses(set(), set())).metrics.add(name)
        for charge, usage in rated.usage(customer, earlier, live).items():
            for use in (*usage.uses, *usage.trial):
                if use.units > 0:
                    found.setdefault(use.row.session_id, _Uses(set(), set())).charges.add(charge)


@dataclass(frozen=True, slots=True)
class _Uses:
    metrics: set[str]
    charges: set[str]


def _facts(row: Row, customer: Customer) -> Mapping[str, Any]:
    return {**row.data, "customer": customer.as_of(row.at_us)}


def _row(event: Mapping[str, Any]) -> Row:
    data = event["data"]
    return Row(
        id=event["id"],
        customer=event["subject"],
        session_id=data["session_id"],
        revision=data["revision"],
        at_us=event["at_us"],
        data=data,
        reverses=data["reverses"],
        conversation=data["conversation"],
        held=data["held"],
        billable=data["billable"],
        shadow=data["shadow"],
    )

"""A ledger as a small company would have it after two months: one seller, its customers, and all that can happen.

Everything goes through the API, day by day, under a clock that this module sets; the same seed gives the same ledger.
`fill` is for tests and for the pictures in the docs.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from billing_api import Clock
from console_server import NOBODY_IS_ASKED, ConsoleServer, console_server
from export_fake import SECRET, Fake
from export_targets import FAKES
from exporting import feed_until_idle

from sidecar import identity
from sidecar.billing.exports.config import load_exports
from sidecar.billing.exports.service import Exports
from sidecar.billing.rating.periods import to_us
from sidecar.billing.tokens import Tokens
from sidecar.delivery.event import Event, outcome_event, request_of, statement_event
from sidecar.sessions.outcome import Evidence, Outcome, Statement

PLANS = Path(__file__).resolve().parents[2] / "examples" / "plans"
SELLER = "brightdesk"
FIRST_DAY = datetime(2026, 10, 1, tzinfo=UTC)
EXPORTED_FROM = datetime(2026, 11, 19, tzinfo=UTC)
LIVED_DAYS = 3
SPECIAL = datetime(2026, 11, 23, tzinfo=UTC)  # whatever the dice say: one held, one not billable, one unattributed
NOW = datetime(2026, 11, 24, 15, 20, tzinfo=UTC)
OPERATORS = ("Maya Chen", "Jonas Weber")
MODELS = ("gpt-4.1-mini", "gpt-4.1-mini", "claude-haiku-4-5", "claude-sonnet-4-5")


@dataclass(frozen=True)
class Buyer:
    """A customer of the seller. `sessions` on a working day; `share` of each outcome, the rest is resolved."""

    id: str
    plan: str
    sessions: float
    since: datetime = FIRST_DAY
    started_at: str | None = None
    seat_tier: str | None = None
    seats: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    escalated: float = 0.18
    silent: float = 0.1
    leads: float = 0.0
    shadow: bool = False


BUYERS = (
    Buyer("northwind", "outcome", 12, attributes={"stripe_id": "cus_NW81"}, escalated=0.14),
    Buyer("globex", "compound", 9, seat_tier="PRO", seats=24, attributes={"stripe_id": "cus_GX20"}, leads=0.08),
    Buyer("initech", "compound", 4, seat_tier="BASIC", seats=6, attributes={"stripe_id": "cus_IN07"}, leads=0.05),
    Buyer("contoso", "capped", 6, attributes={"stripe_id": "cus_CO55"}, escalated=0.22),
    Buyer(
        "tailspin", "outcome", 5, datetime(2026, 11, 12, tzinfo=UTC), "2026-11-12T00:00:00Z",
        attributes={"stripe_id": "cus_TS93"},
    ),
    Buyer("fabrikam", "outcome", 3, datetime(2026, 11, 9, tzinfo=UTC), shadow=True),
)  # fmt: skip
CAPPED = """\
rate_plan:
  name: "Capped"
  metrics:
    - id: ai_resolution
      name: "Successful AI resolutions"
      unit: resolution
      aggregation: COUNT
      event_field: outcome
      filter_conditions:
        - {field: outcome, operator: EQUALS, value: RESOLVED}
        - {field: session_id, operator: UNIQUE_WITHIN_WINDOW, window: SESSION}
  pricing: {model: PER_UNIT, rate: RATE, currency: USD, included_free: 10}
  guardrails: {max_spend_cap: 100, max_spend_behavior: CAP, min_spend: 20}
"""
EXPORTS = """\
exports:
- name: stripe
  kind: stripe_v2
  url: STRIPE
  secret: {env: KEY}
  customer: attributes.stripe_id
  meters:
    - {code: ai_resolutions, metrics: [ai_resolution, resolution]}
    - {code: qualified_leads, metrics: [qualification]}
- name: warehouse
  kind: webhook
  url: HOOK
  secret: {env: KEY}
  meters:
    - {code: resolutions, metrics: [ai_resolution, resolution]}
"""


@asynccontextmanager
async def company(folder: Path, tokens: Tokens = NOBODY_IS_ASKED, share: float = 1) -> AsyncIterator[ConsoleServer]:
    """A server on the filled ledger, with two targets of exports that listen. `share` of the sessions is enough where
    it matters what there is, not how much of it.
    """
    clock = Clock()
    clock.now_us = to_us(FIRST_DAY)
    stripe, hook = FAKES["stripe_v2"](clock), FAKES["webhook"](clock)
    async with stripe.listening(), hook.listening(), console_server(folder, tokens, clock) as server:
        file = EXPORTS.replace("STRIPE", stripe.url).replace("HOOK", hook.url).encode()
        exports = Exports(server.billing.database, load_exports(file, "exports.yaml", {"KEY": SECRET}), clock)
        try:
            story = _Story(server, stripe, exports, share)
            await story.tell()
            server.named = {
                "customers": "globex", "lines": "resolutions_pro", "sessions": story.disputed, "plans": "capped",
                "exports": "stripe", "backtest": await server.backtest("capped", "2026-10"),
            }  # fmt: skip
            yield server
        finally:
            await exports.close()


class _Story:
    """The two months, told once."""

    def __init__(self, server: ConsoleServer, stripe: Fake, exports: Exports, share: float) -> None:
        self._server = server
        self._stripe = stripe
        self._exports = exports
        self._share = share
        self.disputed = ""
        self._random = random.Random(20261001)
        self._ticket = 48_000
        self._states: dict[str, str] = {}  # of every session that was posted
        self._turns: dict[datetime, list[Outcome]] = {}
        self._standing: Outcome | None = None  # the last one of one buyer that nothing will take back
        self._special = [0.0, 0.012, 0.02]
        self._held: list[Outcome] = []
        self._unattributed: list[Outcome] = []
        self._digests = {path.stem: "sha256:" + identity.alias_digest("", "", path.stem) for path in PLANS.iterdir()}

    async def tell(self) -> None:
        await self._plans()
        day = FIRST_DAY
        while day <= NOW:
            await self._begin(day)
            self._server.clock.now_us = to_us(day + timedelta(hours=9, minutes=10))
            await self._decide(day)
            await self._post([one for one in self._day(day) if one.time_ms <= _ms(NOW)])
            await self._end(min(day + timedelta(days=1), NOW))
            day += timedelta(days=1)

    async def _plans(self) -> None:
        fin = (PLANS / "fin.yaml").read_text().replace("included_free: 100 ", "included_free: 25 ")
        assert "included_free: 25 " in fin
        for name, text in {
            "outcome": fin,
            "compound": (PLANS / "compound.yaml").read_text(),
            "capped": CAPPED.replace("RATE", "0.89"),
        }.items():
            await self._ask("PUT", f"/v1/plans/{name}", text, "application/yaml")

    async def _begin(self, day: datetime) -> None:
        """What is settled on a morning: new customers, a new version of a plan, a target that loses a customer."""
        self._server.clock.now_us = to_us(day)
        for buyer in BUYERS:
            if buyer.since == day:
                facts = {
                    "plan": buyer.plan, "started_at": buyer.started_at, "seat_tier": buyer.seat_tier,
                    "seats": buyer.seats, "attributes": buyer.attributes,
                    "effective_from": f"{day:%Y-%m-%dT00:00:00Z}",
                }  # fmt: skip
                await self._ask("PUT", f"/v1/customers/{buyer.id}", json.dumps(facts))
        if day == datetime(2026, 11, 1, tzinfo=UTC):
            await self._ask("PUT", "/v1/plans/capped", CAPPED.replace("RATE", "0.99"), "application/yaml")
        if day == EXPORTED_FROM:
            await self._exports.begin()
            self._server.billing.exports = self._exports
        if day == EXPORTED_FROM + timedelta(days=3):
            self._stripe.broken.add("cus_CO55")

    def _day(self, day: datetime) -> Iterator[Outcome]:
        """All that is finalized on a day, revisions of earlier days included."""
        yield from self._turns.pop(day, ())
        for buyer in BUYERS:
            if day < buyer.since:
                continue
            expected = (
                self._share * buyer.sessions * (0.35 if day.weekday() >= 5 else 1) * (1 + (day - FIRST_DAY).days / 120)
            )
            for _ in range(max(0, round(self._random.gauss(expected, expected**0.5 / 2)))):
                yield self._session(buyer, day)

    def _session(self, buyer: Buyer, day: datetime) -> Outcome:
        dice = self._random
        self._ticket += dice.randrange(1, 9)
        began = day + timedelta(seconds=int(min(max(dice.gauss(13.5, 3.2), 0.2), 22.4) * 3600))
        turns = 1 + min(9, int(dice.expovariate(0.45)))
        ended = began + timedelta(seconds=dice.randrange(40, 240) * turns)
        conversation = str(self._ticket)
        session_id = identity.session_id(identity.session_base(SELLER, "conversation", conversation), 1)
        model = dice.choice(MODELS)
        one = Outcome(
            session_id=session_id, tenant=SELLER, revision=0, state="RESOLVED", outcome="RESOLVED",
            time_ms=_ms(ended + timedelta(minutes=10)), started_ms=_ms(began), ended_ms=_ms(ended),
            plan=buyer.plan, plan_digest=self._digests["fin"], conversation=conversation, customer=buyer.id,
            confirmation="CONFIRMED", reason="tool resolve_conversation", shadow=buyer.shadow, turns=turns,
            llm_calls=turns + dice.randrange(0, 4), tool_calls=1 + dice.randrange(0, 3),
            input_tokens=turns * dice.randrange(900, 2600), output_tokens=turns * dice.randrange(120, 420),
            models=(model,), attributes={"channel": dice.choice(("web", "web", "email", "whatsapp"))},
            evidence=(self._proof(ended, "resolve_tool", "tool_call"),), chain=self._chain(session_id, 0),
        )  # fmt: skip
        return self._fate(one, buyer, day, ended)

    def _fate(self, one: Outcome, buyer: Buyer, day: datetime, ended: datetime) -> Outcome:
        """What became of it, and what will become of it on a later day."""
        dice = self._random.random()
        if day == SPECIAL and self._special:
            dice = buyer.escalated + buyer.silent + buyer.leads + self._special.pop()
        if dice < buyer.escalated:
            return self._escalated(one, ended)
        if (dice := dice - buyer.escalated) < buyer.silent:
            silent = replace(
                one, state="INCONCLUSIVE", outcome="INCONCLUSIVE", confirmation=None, reason="", tool_calls=0,
                time_ms=one.ended_ms + 3_600_000, evidence=(self._proof(ended, "timeout", "timeout", ""),),
            )  # fmt: skip
            if dice < 0.012:  # the help desk says so on the next day
                later = self._revised(silent, "crm_resolved", "resolved in the help desk")
                later = replace(later, state="RESOLVED", outcome="RESOLVED", confirmation="CONFIRMED")
                self._later(day, later)
            return silent
        if (dice := dice - buyer.silent) < buyer.leads:
            return replace(one, outcome="QUALIFIED", reason="tool qualify_lead")
        if (dice := dice - buyer.leads) < 0.012:
            incomplete = replace(one, held=True, complete=False)
            self._held += [] if one.shadow else [incomplete]
            return incomplete
        if (dice := dice - 0.012) < 0.008:
            return replace(one, billable=False, complete=False)
        if (dice := dice - 0.008) < 0.007:
            nobodys = replace(one, customer=None)
            self._unattributed += [] if one.shadow else [nobodys]
            return nobodys
        if (dice := dice - 0.007) < 0.03:
            taken = replace(self._revised(one, "bad_rating", "survey: not solved"), state="REVERSED",
                            outcome="UNRESOLVED", confirmation=None)  # fmt: skip
            self._later(day, taken)
        elif dice - 0.03 < 0.02:
            self._later(day, self._escalated(self._revised(one, "handoff", ""), ended))
        elif buyer.id == "northwind":
            self._standing = one
        return one

    def _escalated(self, one: Outcome, at: datetime) -> Outcome:
        return replace(
            one, state="NOT_BILLABLE", outcome="ESCALATED_TO_HUMAN", confirmation=None, reason="handoff tool",
            evidence=(*one.evidence[1:], self._proof(at, "handoff_tool", "tool_call")),
        )  # fmt: skip

    def _revised(self, one: Outcome, rule: str, reason: str) -> Outcome:
        at = datetime.fromtimestamp(one.time_ms / 1000, UTC) + timedelta(hours=24 + self._random.random())
        return replace(
            one, revision=1, time_ms=_ms(at), reason=reason, chain=self._chain(one.session_id, 1),
            evidence=(*one.evidence, self._proof(at, rule, "webhook")),
        )  # fmt: skip

    def _later(self, day: datetime, revision: Outcome) -> None:
        self._turns.setdefault(day + timedelta(days=1), []).append(revision)

    def _proof(self, at: datetime, rule: str, kind: str, said: str | None = None) -> Evidence:
        digest = identity.content_digest(b"seed", rule, str(self._random.random()))
        return Evidence(_ms(at), rule, kind, digest if said is None else said)

    def _chain(self, session_id: str, revision: int) -> str:
        return identity.alias_digest(SELLER, "chain", f"{session_id}:{revision}")

    async def _post(self, outcomes: list[Outcome]) -> None:
        """What a day brought; of the last days one by one, as it comes, else at once."""
        outcomes.sort(key=lambda one: one.time_ms)
        at_once = 1 if outcomes and outcomes[-1].time_ms > _ms(NOW - timedelta(days=LIVED_DAYS)) else 100
        for start in range(0, len(outcomes), at_once):
            some = outcomes[start : start + at_once]
            self._server.clock.now_us = max(self._server.clock.now_us, some[-1].time_ms * 1000 + 400_000)
            await self._send([outcome_event(one) for one in some])
        self._states.update((one.session_id, one.state) for one in outcomes)

    async def _end(self, until: datetime) -> None:
        """The evening's statement; then everything is summed up and exported."""
        self._server.clock.now_us = to_us(until)
        counters = {"opened": len(self._states) + 3, "open": 3}
        finalized = dict(Counter(self._states.values()))
        hour = f"{until:%Y-%m-%dT%H}"
        await self._send([statement_event(Statement(SELLER, hour, _ms(until), "g1", counters, finalized, 0))])
        await self._server.settle()
        await feed_until_idle(self._exports.senders)

    async def _send(self, events: list[Event]) -> None:
        request = request_of(events)
        answer = await self._ask("POST", "/v1/outcomes", request.body, request.content_type)
        assert not answer["rejected"], answer

    async def _decide(self, day: datetime) -> None:
        """Operators look at what is three days old; two conversations are disputed a month."""
        due_ms = self._server.clock.now_us / 1000 - 3 * 86_400_000
        for waiting, choices in ((self._held, ("release", "release", "drop")), (self._unattributed, ("assign",))):
            while waiting and waiting[0].time_ms < due_ms:
                one, kind = waiting.pop(0), self._random.choice(choices)
                said = {"release": "the CRM has the resolution", "drop": "no trace of it in the CRM",
                        "assign": "found by its ticket"}[kind]  # fmt: skip
                more = {"customer": "northwind"} if kind == "assign" else {}
                await self._rule(one, kind, said, **more)
        if day.day in {9, 23} and self._standing is not None:
            self.disputed = self._standing.session_id
            await self._rule(self._standing, "reverse", "the customer disputes it: they had to call")

    async def _rule(self, one: Outcome, kind: str, reason: str, **more: str) -> None:
        body = {"actor": self._random.choice(OPERATORS), "reason": reason, **more}
        await self._ask("POST", f"/v1/outcomes/{identity.event_id(one.session_id, 0)}/{kind}", json.dumps(body))

    async def _ask(self, method: str, path: str, content: str | bytes, kind: str = "application/json") -> Any:
        answer = await self._server.api.request(method, path, content=content, headers={"Content-Type": kind})
        assert answer.is_success, answer.text
        return answer.json()


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)

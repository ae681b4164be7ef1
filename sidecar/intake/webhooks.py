"""A verified webhook becomes signals: its events, their names, and what the plan's rules say about them. Pure.

An event is named by its source and what the sender calls it, so that copies of it, on any replica and at any time,
are one signal. Of the payload nothing is kept but the digest of the bytes, ids, and what a rule sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from sidecar.identity import content_digest, key
from sidecar.intake.signal import Signal
from sidecar.intake.sources import SOURCES, STANDARD, Scheme, Source, source_of
from sidecar.intake.verify import Delivery, secret_fault, verify
from sidecar.observer.locators import compile_search, is_usable, scalar_text
from sidecar.policy.loading import LoadedPlan
from sidecar.policy.rules import Mapped

BODY_BYTES_MAX = 1 << 20
EVENTS_MAX = 500  # of one batch; HubSpot sends up to 100
_CREDENTIALS = {"authorization", "cookie"} | {
    scheme.signature for source in (*SOURCES.values(), STANDARD) for scheme in source.schemes
}

Search = Callable[[Any], Any]


class MalformedError(ValueError):
    """The bytes are signed, and are no webhook: the text says why. `status` is the HTTP status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A source for which there are secrets, with its expressions compiled. `name` is as in its variables and rules."""

    name: str
    source: Source
    secrets: tuple[str, ...] = field(repr=False)
    event_id: tuple[Search, ...]
    conversation: Search
    score: Search

    def check(self, delivery: Delivery, now_ms: int) -> Scheme:
        """How the delivery is signed; raises RefusedError when it is not."""
        return verify(self.source, self.secrets, delivery, now_ms)

    def facts(self, payload: Any, headers: Mapping[str, str]) -> dict[str, Any]:
        """What rules see of one event. Credentials stay out of it, lest a rule keep one."""
        shown = {name: value for name, value in headers.items() if name not in _CREDENTIALS}
        facts: dict[str, Any] = {"source": self.name, "payload": payload, "headers": shown}
        return facts | {"conversation": self.conversation(facts), "score": self.score(facts)}


def endpoints(secrets: Mapping[str, Sequence[str]], conversations: Mapping[str, str]) -> dict[str, Endpoint]:
    """The endpoints by name; raises ValueError naming each variable that is wrong, one per line."""
    faults = []
    made = {}
    for name, values in secrets.items():
        source = source_of(name)
        wrong = [fault for value in values if (fault := secret_fault(source, value))]
        faults += [f"SIDECAR_WEBHOOK_SECRET_{name.upper()}: {fault}" for fault in wrong]
        try:
            conversation = compile_search(conversations.get(name, source.conversation))
        except ValueError as error:
            reason = str(error).partition(";")[0]
            faults.append(f"SIDECAR_WEBHOOK_CONVERSATION_{name.upper()}: {reason}; as in payload.ticket.id")
            continue
        made[name] = Endpoint(
            name=name,
            source=source,
            secrets=tuple(values),
            event_id=tuple(map(compile_search, source.event_id)),
            conversation=conversation,
            score=compile_search(source.score) if source.score else _nothing,
        )
    if faults:
        raise ValueError("\n".join(faults))
    return made


@dataclass(frozen=True, slots=True)
class Found:
    """One signal of a webhook, waiting only for its sequence in the journal. `source` and `id` name it for ever."""

    source: str
    id: str
    numbered: Callable[[int], Signal]

    def row(self, sequence: int) -> bytes:
        """The journal's bytes of it."""
        return self.numbered(sequence).to_json()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a webhook says: how many events, how many of them no rule knows, and the signals of the others."""

    events: int
    unmapped: int
    signals: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """What a signal carries besides what the webhook says."""

    producer: str
    tenant: str
    at_ms: int
    hash_key: bytes


def read_webhook(
    endpoint: Endpoint, scheme: Scheme, delivery: Delivery, plan: LoadedPlan, placement: Placement
) -> Reading:
    """The signals of a verified delivery; raises MalformedError."""
    digest = content_digest(placement.hash_key, delivery.body)
    events = _events(endpoint.source, delivery.body)
    found: list[Found] = []
    unmapped = 0
    for index, payload in enumerate(events):
        facts = endpoint.facts(payload, delivery.headers)
        name = _name(endpoint, scheme, facts) or f"{digest}/{index}"
        mapped = plan.rules.judge_webhook(facts, digest=digest)
        unmapped += not mapped
        for position, one in enumerate(mapped):
            # The first effect of an event bears the event's name alone, whichever rule gave it.
            identifier = f"{name}#{one.effect.rule}" if position else name
            found.append(Found(endpoint.name, identifier, _numbering(endpoint.name, identifier, one, plan, placement)))
    return Reading(len(events), unmapped, tuple(found))


def _events(source: Source, body: bytes) -> list[Any]:
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedError(400, f"the body is not JSON: {error}") from None
    if not isinstance(payload, dict | list):
        raise MalformedError(400, "the body is a JSON value on its own: an object is needed")
    if not source.batch or isinstance(payload, dict):
        return [payload]
    if len(payload) > EVENTS_MAX:
        raise MalformedError(413, f"{len(payload)} events in one request: at most {EVENTS_MAX}")
    return payload


def _name(endpoint: Endpoint, scheme: Scheme, facts: Mapping[str, Any]) -> str | None:
    """What the sender calls the event; None when it has no usable name."""
    parts: Iterable[Any] = (search(facts) for search in endpoint.event_id)
    if scheme.id:
        parts = (facts["headers"][scheme.id],)
    texts = [scalar_text(part) for part in parts]
    name = ":".join(texts)
    return name if texts and all(texts) and is_usable(name) else None


def _numbering(
    source: str, identifier: str, mapped: Mapped, plan: LoadedPlan, placement: Placement
) -> Callable[[int], Signal]:
    def numbered(sequence: int) -> Signal:
        return Signal(
            producer=placement.producer,
            sequence=sequence,
            tenant=placement.tenant,
            source=source,
            id=identifier,
            at_ms=placement.at_ms,
            effect=mapped.effect,
            terms=plan.terms,
            alias=key(placement.tenant, mapped.kind, mapped.value),
        )

    return numbered


def _nothing(_: Any) -> None:
    return None

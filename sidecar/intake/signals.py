"""`POST /v1/signals`: the body as senders write it, checked, and turned into a `Signal`.

Pure: the admin API reads the bytes, the journal makes them durable. A posted signal always applies, whatever rules
the plan has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from sidecar.identity import content_digest, key
from sidecar.intake.signal import Signal
from sidecar.policy.effect import Attribute, Effect, EventName
from sidecar.policy.terms import Terms

BODY_BYTES_MAX = 64 * 1024
ATTRIBUTES_MAX = 32
_OUTCOME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_EVENTS: dict[str, EventName] = {"ESCALATED_TO_HUMAN": "escalate", "UNRESOLVED": "unresolve"}


class InvalidSignalError(ValueError):
    """The sender's mistake; `problems` names each field and what it must be. `unreadable`: it is not even JSON."""

    def __init__(self, problems: list[str], *, unreadable: bool = False) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
        self.unreadable = unreadable


def _printable(text: str) -> str:
    if len(text.encode("utf-8", "replace")) > 256:
        raise ValueError("is longer than 256 bytes")
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise ValueError("has control characters")
    return text


def _outcome(text: str) -> str:
    if text == "INCONCLUSIVE":
        raise ValueError("INCONCLUSIVE is what silence means; no signal can say it")
    if not _OUTCOME.fullmatch(text):
        raise ValueError("must be upper case letters, digits and _, at most 64, for example RESOLVED")
    return text


def _attributes(value: dict[str, Attribute]) -> dict[str, Attribute]:
    if len(value) > ATTRIBUTES_MAX:
        raise ValueError(f"has more than {ATTRIBUTES_MAX} entries")
    for name, item in value.items():
        _printable(name)
        if isinstance(item, str):
            _printable(item)
        elif isinstance(item, int) and item.bit_length() >= 64:
            raise ValueError(f"{name} has more than 64 bits: send it as a text")
        elif isinstance(item, float) and not math.isfinite(item):
            raise ValueError(f"{name} is no finite number")
    return value


Text = Annotated[str, Field(min_length=1), AfterValidator(_printable)]


class AliasBody(BaseModel):
    """A name of a session: the kind says in which namespace."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["conversation", "response", "tool_call", "trace"]
    value: Text


class SignalBody(BaseModel):
    """The request body of `POST /v1/signals`."""

    model_config = ConfigDict(extra="forbid")

    id: Text
    source: Text
    session_id: Annotated[str, Field(pattern=r"^ses_[0-9a-f]{8,64}$")] | None = None
    alias: AliasBody | None = None
    outcome: Annotated[str, AfterValidator(_outcome)] | None = None
    escalated_to_human: bool = False
    reason: Annotated[str, AfterValidator(_printable)] = ""
    customer: Text | None = None
    attributes: Annotated[dict[str, Attribute], AfterValidator(_attributes)] = Field(default_factory=dict)
    at: AwareDatetime | None = None

    @model_validator(mode="after")
    def _together(self) -> SignalBody:
        if (self.session_id is None) == (self.alias is None):
            raise ValueError("exactly one of session_id and alias is needed")
        if self.outcome is None and not self.escalated_to_human:
            raise ValueError("outcome, or escalated_to_human: true, is needed")
        return self


def parse_signal(raw: bytes) -> SignalBody:
    """The body, checked; raises InvalidSignalError naming every problem."""
    try:
        return SignalBody.model_validate_json(raw)
    except ValidationError as error:
        entries = error.errors(include_url=False)
        unreadable = any(entry["type"] == "json_invalid" for entry in entries)
        raise InvalidSignalError([_sentence(entry) for entry in entries], unreadable=unreadable) from None


def build_signal(
    body: SignalBody,
    *,
    producer: str,
    tenant: str,
    at_ms: int,
    terms: Terms,
    hash_key: bytes,
    raw: bytes,
) -> Callable[[int], Signal]:
    """The fact that the body states, waiting only for its sequence in the journal."""
    event: EventName = "resolve"
    if body.escalated_to_human:
        event = "escalate"
    elif body.outcome is not None:
        event = _EVENTS.get(body.outcome, "resolve")
    effect = Effect(
        rule=f"signal:{body.source}",
        kind="signal",
        event=event,
        outcome=body.outcome if event == "resolve" else None,
        reason=body.reason or f"signal from {body.source}",
        customer=body.customer,
        attributes=dict(body.attributes),
        digest=content_digest(hash_key, raw),
    )
    alias = key(tenant, body.alias.kind, body.alias.value) if body.alias else None

    def numbered(sequence: int) -> Signal:
        return Signal(
            producer=producer,
            sequence=sequence,
            tenant=tenant,
            source=body.source,
            id=body.id,
            at_ms=at_ms,
            effect=effect,
            terms=terms,
            session_id=body.session_id,
            alias=alias,
            claimed_at=body.at.isoformat() if body.at else None,
        )

    return numbered


def _sentence(entry: Any) -> str:
    where = ".".join(str(part) for part in entry["loc"])
    message = str(entry["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message

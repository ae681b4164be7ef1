"""The type that rules put out: what a matched rule says about the session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

EventName = Literal["resolve", "escalate", "unresolve"]
Confirmation = Literal["CONFIRMED", "ASSUMED"]
Attribute = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Effect:
    """One matched rule.

    `event` is None for a rule that only sets a customer or attributes. `call` is the digest of the tool call's id:
    an effect with a call counts once per call in a session. `digest` is the evidence: an HMAC of the bytes judged.
    """

    rule: str
    kind: str  # request, response, tool_call, webhook, signal
    event: EventName | None = None
    outcome: str | None = None  # RESOLVED, or the name that the plan gave; None unless event is resolve
    confirmation: Confirmation = "CONFIRMED"
    reason: str = ""
    customer: str | None = None
    attributes: dict[str, Attribute] = field(default_factory=dict)
    call: str = ""
    digest: str = ""

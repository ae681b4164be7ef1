"""A conversation as a test writes it: what is said and told, when, and what must become of it.

These models are the format's definition; docs/plans.md shows it to people, `sidecar plan test --schema` to editors.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from sidecar.intake.signals import InvalidSignalError, parse_signal
from sidecar.policy.conditions import instant
from sidecar.policy.faults import FaultError
from sidecar.policy.plan import Label, Strict

START = "2026-11-02T09:00:00Z"
STEPS_MAX, CONVERSATIONS_MAX = 200, 500
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_UNITS_MS = (86_400_000, 3_600_000, 60_000, 1_000)
_YEAR_MS = 366 * 86_400_000


def duration_ms(text: str) -> int:
    """`90s`, `5m`, `1h30m`, `3d` in milliseconds; raises ValueError for anything else."""
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError(f"{text!r} is no duration: write it like 90s, 5m, 1h30m or 3d")
    total = sum(int(count) * unit for count, unit in zip(match.groups(), _UNITS_MS, strict=True) if count)
    if total > _YEAR_MS:
        raise ValueError(f"{text!r} is longer than a year")
    return total


def _duration(text: str) -> str:
    duration_ms(text)
    return text


def _moment(text: str) -> str:
    if instant(text) is None:
        raise ValueError(f"{text!r} is no time: write it like {START}")
    return text


def _list(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


Duration = Annotated[str, AfterValidator(_duration)]
Moment = Annotated[str, AfterValidator(_moment)]
Words = Annotated[str, StringConstraints(max_length=20_000)]
Headers = dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+$")], Words]


class Tool(Strict):
    """A tool that the agent's model calls."""

    name: Label
    arguments: dict[str, Any] = Field(default_factory=dict)
    id: Label | None = Field(None, description="as the API numbers calls; made up when not given")


class Said(Strict):
    """A signal, as `POST /v1/signals` takes it. Without `alias` or `session_id` it is about this conversation."""

    id: Label | None = None
    source: Label = "test"
    session_id: str | None = None
    alias: dict[str, Any] | None = None
    outcome: str | None = None
    escalated_to_human: bool = False
    reason: str = ""
    customer: str | None = None
    attributes: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_a_signal(self) -> Self:
        try:
            parse_signal(self.body("c", 1))
        except InvalidSignalError as error:
            raise FaultError((), "; ".join(error.problems)) from None
        return self

    def body(self, conversation: str, number: int) -> bytes:
        """The bytes of the request."""
        body = plain(self.model_dump(exclude_none=True))
        body["id"] = self.id or f"signal-{number}"
        if self.session_id is None and self.alias is None:
            body["alias"] = {"kind": "conversation", "value": conversation}
        return json.dumps(body).encode()


class Webhook(Strict):
    """What a CRM or survey posts, after its signature was checked."""

    source: Label
    payload: Any
    headers: Headers = Field(default_factory=dict)


class Answer(Strict):
    """The response to a `request`."""

    status: Annotated[int, Field(ge=200, le=599)] = 200
    headers: Headers = Field(default_factory=dict)
    body: Any = None


class Request(Strict):
    """An exchange as it is on the wire, for rules over APIs that the format does not write itself."""

    method: Annotated[str, StringConstraints(pattern=r"^[A-Z]+$")] = "POST"
    path: Annotated[str, StringConstraints(pattern=r"^/[^\s#]*$")]
    headers: Headers = Field(default_factory=dict)
    body: Any = None
    response: Answer = Answer()


class Expected(Strict):
    """What must have become of one session. What is not named is not compared."""

    state: Literal[
        "AI_HANDLING", "RESOLVED_PENDING", "ESCALATED_TO_HUMAN", "RESOLVED", "NOT_BILLABLE", "INCONCLUSIVE", "REVERSED"
    ] | None = Field(None, description="where it stands; the first three are of a session still open")  # fmt: skip
    outcome: str | None = Field(None, description="as it was posted last")
    confirmation: Literal["CONFIRMED", "ASSUMED"] | None = None
    escalated_to_human: bool | None = None
    reason: str | None = None
    customer: str | None = None
    conversation: str | None = None
    held: bool | None = Field(None, description="posted, and an operator decides")
    billable: bool | None = None
    complete: bool | None = None
    shadow: bool | None = None
    turns: int | None = None
    llm_calls: int | None = None
    tool_calls: int | None = None
    attributes: dict[str, Any] | None = Field(None, description="these at least")
    rules: list[str] | None = Field(None, description="ids of the rules in its evidence, in order")
    posted: list[str] | None = Field(None, description="the state of each revision posted, in order")
    metrics: list[str] | None = Field(None, description="ids of the plan's metrics that count it")
    charges: list[str] | None = Field(None, description="ids of the plan's charges that it feeds (`pricing` is one)")


Sessions = Annotated[list[Expected], BeforeValidator(_list), Field(max_length=50)]
_KINDS = ("wait", "signal", "webhook", "request", "expect")
_TALK = ("user", "agent", "tools", "status", "cut", "dropped")


class Step(Strict):
    """One thing that happens. `user`, `agent` and `tools` together are one turn; every other kind stands alone."""

    after: Duration | None = Field(None, description="time since the step before; 10s between turns, else none")
    user: Words | None = Field(None, description="what the user says")
    agent: Words | None = Field(None, description="what the agent answers; alone: what it says unasked")
    tools: list[Tool] = Field(default_factory=list, max_length=50, description="tools that the model calls first")
    status: Annotated[int, Field(ge=200, le=599)] = Field(200, description="of the API's answer")
    cut: bool = Field(False, description="the answer ends in the middle")
    dropped: bool = Field(False, description="a part of the sidecar's copy is lost: the session is incomplete")
    wait: Duration | None = Field(None, description="nothing happens for this long")
    signal: Said | None = None
    webhook: Webhook | None = None
    request: Request | None = None
    expect: Sessions | None = Field(None, description="how things stand at this point")

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        talk = [kind for kind in _TALK if kind in self.model_fields_set]
        if len(given) > 1:
            raise FaultError((given[1],), f"{given[0]} and {given[1]} are two steps: write them one after the other")
        if given and talk:
            raise FaultError((given[0],), f"{talk[0]} and {given[0]} are two steps: write them one after the other")
        if not given and not (self.user is not None or self.agent is not None or self.tools):
            raise FaultError((), "nothing happens: write user, agent, tools, wait, signal, webhook, request or expect")
        if self.wait is not None and self.after is not None:
            raise FaultError(("after",), "wait says how long already: remove after")
        return self


class Conversation(Strict):
    """One test."""

    name: Label
    id: Label | None = Field(None, description="the conversation's id; made from the name when not given")
    without_id: bool = Field(False, description="no id is sent: the conversation is known by what is said")
    customer: Label | None = Field("customer-1", description="null: none is named")
    customer_facts: dict[str, Any] = Field(default_factory=dict, description="seat_tier, seats, attributes, …")
    api: Literal["openai.chat", "anthropic.messages"] = "openai.chat"
    start: Moment = START
    shadow: bool = False
    steps: list[Step] = Field(min_length=1, max_length=STEPS_MAX)
    expect: Sessions = Field(description="the sessions, in order of their beginning, once every timer has fired")

    @property
    def known_as(self) -> str:
        """The conversation's id."""
        return self.id or re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:60] or "conversation"

    @property
    def start_ms(self) -> int:
        """Unix milliseconds."""
        moment = instant(self.start)
        if moment is None:  # the validator has seen to it
            raise ValueError(self.start)
        return round(moment.timestamp() * 1000)


class Locating(Strict):
    """The deployment's settings that find ids, if they are not the defaults."""

    session_keys: str = Field(default="", description="as SIDECAR_SESSION_KEYS")
    customer: str = Field(default="header:x-customer-id", description="as SIDECAR_CUSTOMER")
    webhook_conversations: dict[str, str] = Field(
        default_factory=dict, description="by source, as SIDECAR_WEBHOOK_CONVERSATION_<SOURCE>"
    )


class ConversationFile(Strict):
    """A file of tests for one plan."""

    plan: Annotated[str, StringConstraints(min_length=1)] = Field(
        description="path of the plan, from this file's folder"
    )
    settings: Locating = Locating()
    conversations: list[Conversation] = Field(min_length=1, max_length=CONVERSATIONS_MAX)

    @model_validator(mode="after")
    def _named_apart(self) -> Self:
        seen: dict[str, int] = {}
        for index, each in enumerate(self.conversations):
            if each.name in seen:
                raise FaultError(("conversations", index, "name"), f"{each.name!r} is the name of another one too")
            seen[each.name] = index
        return self


def plain(value: Any) -> Any:
    """YAML's exact decimals as JSON writes numbers."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def schema() -> dict[str, Any]:
    """The format as a JSON schema."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ConversationFile.model_json_schema()}

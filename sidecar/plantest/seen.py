"""What became of a session, in the words of a test's `expect`, and how it differs from what was expected."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from sidecar.plantest.conversation import Expected, plain
from sidecar.policy.conditions import instant, number
from sidecar.sessions.view import SessionView

_OPEN_FIELDS = ("outcome", "confirmation", "escalated_to_human", "held", "billable")


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of one session (from 0) that is not as expected; `session` None: their number."""

    session: int | None
    field: str
    expected: Any
    seen: Any

    def __str__(self) -> str:
        if self.session is None:
            return f"the number of sessions is {self.seen}, expected {self.expected}"
        return f"session {self.session + 1}: {self.field} is {_shown(self.seen)}, expected {_shown(self.expected)}"


@dataclass(frozen=True, slots=True)
class Seen:
    """One session: `fields` by the names of `Expected`, and the sentences that explain it."""

    id: str
    fields: Mapping[str, Any]
    explanation: tuple[str, ...]

    @classmethod
    def of(
        cls,
        view: SessionView,
        events: Sequence[Mapping[str, Any]],
        metrics: list[str],
        charges: list[str],
        explanation: Sequence[str],
    ) -> Self:
        """Where the session stands; what was posted comes from the last event, once there is one."""
        fields: dict[str, Any] = {
            "state": view.state.value,
            "reason": view.reason,
            "customer": view.customer,
            "conversation": view.conversation,
            "complete": view.complete,
            "shadow": view.shadow,
            "turns": view.turns,
            "llm_calls": view.llm_calls,
            "tool_calls": view.tool_calls,
            "attributes": view.attributes,
            "rules": [item.rule for item in view.evidence],
            "posted": [event["data"]["state"] for event in events],
            "metrics": metrics,
            "charges": charges,
        }
        last = events[-1]["data"] if events else {}
        fields |= {name: last.get(name) for name in _OPEN_FIELDS}
        return cls(view.id, fields, tuple(explanation))

    def to_dict(self) -> dict[str, Any]:
        """As `--json` shows it."""
        return {"id": self.id, **self.fields, "explanation": list(self.explanation)}


def compare(expected: Sequence[Expected], seen: Sequence[Seen]) -> Iterator[Difference]:
    """Every difference. With another number of sessions, those that both have are compared all the same."""
    if len(expected) != len(seen):
        yield Difference(None, "sessions", len(expected), len(seen))
    for index, (wanted, found) in enumerate(zip(expected, seen, strict=False)):
        for name in sorted(wanted.model_fields_set, key=list(Expected.model_fields).index):
            want, have = plain(getattr(wanted, name)), found.fields[name]
            if name == "attributes" and isinstance(want, dict):
                have = {key: have.get(key) for key in want}
            if name in {"metrics", "charges"}:
                want = sorted(want or [])
            if not _same(want, have):
                yield Difference(index, name, want, have)


def exact_event(body: bytes) -> dict[str, Any]:
    """A posted event as billing reads it: exact decimals, its time in microseconds as `at_us`."""
    event: dict[str, Any] = json.loads(body, parse_float=Decimal)
    moment = instant(event["time"])
    event["at_us"] = round(moment.timestamp() * 1_000_000) if moment else 0
    return event


def _same(want: Any, have: Any) -> bool:
    if isinstance(want, dict) and isinstance(have, dict):
        return want.keys() == have.keys() and all(_same(want[key], have[key]) for key in want)
    exact = number(want)
    if exact is not None and not isinstance(want, str):
        return number(have) == exact
    return bool(want == have)


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value) if isinstance(value, str | int) else json.dumps(value, default=str)

"""The fields that conditions may ask about, so that a slip of the pen is found when the plan is checked.

`outcom` in a filter would otherwise be a field that is never there: nothing would be charged, or with NOT_EQUALS
everything. Names that are close to a known one are refused; others are taken as they are, since an event may carry
more than this version knows. The facts of rules are ours alone, so there every unknown name is refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from sidecar.policy.tree import Path, entries

EVENT_FIELDS = (
    "session_id", "conversation", "tenant", "outcome", "state", "confirmation", "escalated_to_human", "reason",
    "revision", "reverses", "held", "billable", "shadow", "started_at", "ended_at", "turns", "llm_calls", "tool_calls",
    "models", "tokens", "complete", "plan", "attributes", "evidence", "customer",
)  # fmt: skip
_INNER: Mapping[str, tuple[str, ...]] = {
    "tokens": ("input", "output"),
    "plan": ("name", "digest"),
    "customer": ("id", "plan", "started_at", "seat_tier", "seats", "attributes"),
}
_TRAFFIC = ("method", "path", "query", "headers", "body", "text", "model", "api")
FACTS: Mapping[str, tuple[str, ...]] = {
    "request": _TRAFFIC,
    "response": ("status", "state", *_TRAFFIC),
    "tool_call": ("name", "arguments", "status", "state", *_TRAFFIC),
    "webhook": ("source", "payload", "headers", "conversation", "score"),
}
_WITH_PARTS = frozenset({"query", "headers", "body", "arguments", "payload"})


def field_faults(plan: Any) -> Iterator[tuple[Path, str]]:
    """Fields of a plan's unchecked tree that name nothing: (path, message)."""
    if not isinstance(plan, Mapping):
        return
    for index, metric in entries(plan.get("metrics")):
        yield from _event_field(metric.get("event_field"), ("metrics", index, "event_field"))
        for position, condition in entries(metric.get("filter_conditions")):
            place = ("metrics", index, "filter_conditions", position, "field")
            yield from _event_field(condition.get("field"), place)
    for index, charge in entries(plan.get("charges")):
        for position, condition in entries(charge.get("when")):
            yield from _event_field(condition.get("field"), ("charges", index, "when", position, "field"))
    for index, rule in entries(plan.get("signals")):
        known = FACTS.get(str(rule.get("on")), ())
        for position, condition in entries(rule.get("conditions")):
            yield from _fact(condition.get("field"), known, ("signals", index, "conditions", position, "field"))
        alias = rule.get("alias")
        if isinstance(alias, Mapping):
            yield from _fact(alias.get("value"), known, ("signals", index, "alias", "value"))


def _event_field(field: Any, place: Path) -> Iterator[tuple[Path, str]]:
    if not isinstance(field, str):
        return
    root, _, rest = field.partition(".")
    if root not in EVENT_FIELDS:
        yield from _if_close(root, EVENT_FIELDS, place)
    elif root in _INNER and rest and rest.split(".", 1)[0] not in _INNER[root]:
        inner = ", ".join(f"{root}.{name}" for name in _INNER[root])
        yield place, f"{field!r} names nothing; there are {inner}"


def _if_close(root: str, known: tuple[str, ...], place: Path) -> Iterator[tuple[Path, str]]:
    close = difflib.get_close_matches(root, known, n=1, cutoff=0.8)
    if close:
        yield place, f"unknown field {root!r}; did you mean {close[0]}?"


def _fact(field: Any, known: tuple[str, ...], place: Path) -> Iterator[tuple[Path, str]]:
    root, dot, _ = field.partition(".") if isinstance(field, str) else ("", "", "")
    if not root or not known:
        return
    if root in known:
        if dot and root not in _WITH_PARTS:
            yield place, f"{root!r} is one value and has no parts: write {root}"
        return
    close = difflib.get_close_matches(root, known, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
    yield place, f"unknown field {root!r}; {hint}"

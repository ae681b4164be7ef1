"""Two versions of a plan: what differs in meaning, and the files side by side. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import SequenceMatcher
from typing import Any, Literal

from sidecar.billing.console.plan_words import (
    charge_text,
    conditions,
    metric_text,
    signal_text,
    tier_lines,
)
from sidecar.policy.plan import Charge, Metric, RatePlan, SignalRule

_WORDS = {
    "name": "name", "currency": "currency", "trial_days": "days of trial", "unit": "unit",
    "aggregation": "aggregation", "event_field": "field", "model": "model", "rate": "rate",
    "package_size": "package size", "included_free": "free units", "overage_behavior": "beyond the free units",
    "metrics": "counts", "max_spend_cap": "spending cap", "max_spend_behavior": "at the cap",
    "min_spend": "minimum", "timeout_minutes": "minutes of silence that end a session",
    "settle_minutes": "minutes until a resolution is final", "reversal_hours": "hours in which it can be taken back",
    "inconclusive_policy": "silence", "incomplete_policy": "a lost copy", "on_return": "a customer who comes back",
    "on": "looks at", "alias": "finds its conversation by",
}  # fmt: skip
_METRIC = ("name", "unit", "aggregation", "event_field")
_CHARGE = ("name", "metrics", "model", "rate", "package_size", "included_free", "overage_behavior")
_GUARDRAILS = ("max_spend_cap", "max_spend_behavior", "min_spend")
_SESSION = (
    "timeout_minutes", "settle_minutes", "reversal_hours", "inconclusive_policy", "incomplete_policy", "on_return",
)  # fmt: skip
CONTEXT_LINES = 3


@dataclass(frozen=True, slots=True)
class Change:
    """One difference; `before` is None for what was added, `after` for what was removed."""

    place: str
    what: str
    before: str | None
    after: str | None


def changes(before: RatePlan, after: RatePlan) -> list[Change]:
    """Everything that differs in meaning, in the order of a plan."""
    found = list(_fields("plan", before, after, ("name", "trial_days")))
    if before.currency_code != after.currency_code:
        found.append(Change("plan", "currency", before.currency_code, after.currency_code))
    found += _items("metric", before.metrics, after.metrics, _metric, lambda one: metric_text(one).saying)
    found += _items("charge", before.all_charges(), after.all_charges(), _charge, _whole_charge(before, after))
    found += _fields("guardrails", before.guardrails, after.guardrails, _GUARDRAILS)
    found += _fields("session rules", before.session_config, after.session_config, _SESSION)
    if (before.signals is None) != (after.signals is None):
        words = {True: "the built-in ones", False: "the plan’s own"}
        found.append(Change("signals", "rules", words[before.signals is None], words[after.signals is None]))
    found += _items("signal", before.signals or [], after.signals or [], _signal, lambda one: signal_text(one).saying)
    return found


def _whole_charge(before: RatePlan, after: RatePlan) -> Any:
    def text(charge: Charge) -> str:
        currency = (before if charge in before.all_charges() else after).currency_code
        return charge_text(charge, currency).price

    return text


def _metric(place: str, one: Metric, other: Metric) -> Iterable[Change]:
    yield from _fields(place, one, other, _METRIC)
    yield from _set(place, "condition", conditions(one.filter_conditions), conditions(other.filter_conditions))


def _charge(place: str, one: Charge, other: Charge) -> Iterable[Change]:
    yield from _fields(place, one, other, _CHARGE)
    yield from _set(place, "when", conditions(one.when), conditions(other.when))
    before, after = _tiers(one), _tiers(other)
    for units in sorted(before.keys() | after.keys(), key=[*before, *after].index):
        if before.get(units) != after.get(units):
            yield Change(place, f"tier {units}", before.get(units), after.get(units))


def _tiers(charge: Charge) -> Mapping[str, str]:
    return {
        line.units: f"{line.rate} each" + (f" and {line.flat}" if line.flat else "") for line in tier_lines(charge, "")
    }


def _signal(place: str, one: SignalRule, other: SignalRule) -> Iterable[Change]:
    yield from _fields(place, one, other, ("on",))
    yield from _set(place, "condition", conditions(one.conditions), conditions(other.conditions))
    before, after = signal_text(one).saying, signal_text(other).saying
    if before != after and one.on == other.on:
        yield Change(place, "says", before, after)
    aliases = [f"{rule.alias.kind} {rule.alias.value}" if rule.alias else None for rule in (one, other)]
    if aliases[0] != aliases[1]:
        yield Change(place, _WORDS["alias"], aliases[0], aliases[1])


def _items(word: str, before: Sequence[Any], after: Sequence[Any], compare: Any, whole: Any) -> Iterable[Change]:
    """Things with ids: compared when both have them, else named whole."""
    old, new = ({one.id: one for one in side} for side in (before, after))
    for name in [*old, *(name for name in new if name not in old)]:
        place = f"{word} {name}"
        if name not in new:
            yield Change(place, "removed", whole(old[name]), None)
        elif name not in old:
            yield Change(place, "added", None, whole(new[name]))
        else:
            yield from compare(place, old[name], new[name])


def _fields(place: str, one: Any, other: Any, names: Iterable[str]) -> Iterable[Change]:
    for name in names:
        before, after = getattr(one, name), getattr(other, name)
        if before != after:
            yield Change(place, _WORDS[name], _written(before), _written(after))


def _set(place: str, what: str, before: Sequence[str], after: Sequence[str]) -> Iterable[Change]:
    for text in before:
        if text not in after:
            yield Change(place, what, text, None)
    for text in after:
        if text not in before:
            yield Change(place, what, None, text)


def _written(value: Any) -> str | None:
    match value:
        case None:
            return None
        case Decimal():
            return f"{value:f}"
        case list():
            return ", ".join(value)
    return str(value)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of both files beside each other; `kind` says what became of it. `skipped`: so many equal lines."""

    kind: Literal["equal", "changed", "added", "removed", "skipped"]
    left: tuple[int, str] | None = None
    right: tuple[int, str] | None = None
    skipped: int = 0


def side_by_side(before: str, after: str) -> list[Row]:
    """The files line by line, long equal parts left out."""
    left, right = before.splitlines(), after.splitlines()
    found: list[Row] = []
    blocks = SequenceMatcher(None, left, right).get_opcodes()
    for number, (tag, i1, i2, j1, j2) in enumerate(blocks):
        pairs = [
            (
                (i1 + at + 1, left[i1 + at]) if i1 + at < i2 else None,
                (j1 + at + 1, right[j1 + at]) if j1 + at < j2 else None,
            )
            for at in range(max(i2 - i1, j2 - j1))
        ]
        if tag != "equal":
            found += [Row("changed" if a and b else "removed" if a else "added", a, b) for a, b in pairs]
            continue
        rows = [Row("equal", a, b) for a, b in pairs]
        head = 0 if number == 0 else CONTEXT_LINES
        tail = 0 if number == len(blocks) - 1 else CONTEXT_LINES
        if len(rows) > head + tail + 1:
            rows = [*rows[:head], Row("skipped", skipped=len(rows) - head - tail), *rows[len(rows) - tail :]]
        found += rows
    return found

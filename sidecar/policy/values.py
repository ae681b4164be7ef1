"""Values that cannot be meant: what a closed field never is, and outcomes that are a slip away from a known one.

`outcome EQUALS RESOLVD` is right by the grammar and would charge nothing, for ever; `escalated_to_human EQUALS "false"`
compares with a text and never holds. A name of one's own is fine as long as it is not nearly one of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sidecar.policy.tree import Path, entries

OUTCOMES = ("RESOLVED", "ESCALATED_TO_HUMAN", "INCONCLUSIVE", "UNRESOLVED")
_CLOSED: Mapping[str, tuple[str, ...]] = {
    "state": ("RESOLVED", "NOT_BILLABLE", "INCONCLUSIVE", "REVERSED"),
    "confirmation": ("CONFIRMED", "ASSUMED"),
}
_BOOLEANS = frozenset({"escalated_to_human", "held", "billable", "shadow", "complete"})
_COMPARING = frozenset({"EQUALS", "NOT_EQUALS", "IN", "NOT_IN"})


def value_faults(plan: Any) -> Iterator[tuple[Path, str]]:
    """Values of a plan's unchecked tree that nothing can ever equal: (path, message)."""
    if not isinstance(plan, Mapping):
        return
    own = set()
    for index, rule in entries(plan.get("signals")):
        setting = rule.get("set")
        outcome = setting.get("outcome") if isinstance(setting, Mapping) else None
        if isinstance(outcome, str):
            own.add(outcome)
            yield from _if_nearly(outcome, OUTCOMES, ("signals", index, "set", "outcome"))
    known = (*OUTCOMES, *sorted(own))
    for place, inside in (("metrics", "filter_conditions"), ("charges", "when")):
        for index, entry in entries(plan.get(place)):
            for position, condition in entries(entry.get(inside)):
                yield from _condition(condition, known, (place, index, inside, position, "value"))


def _condition(condition: Mapping[str, Any], outcomes: Iterable[str], place: Path) -> Iterator[tuple[Path, str]]:
    field, value = condition.get("field"), condition.get("value")
    if condition.get("operator") not in _COMPARING or not isinstance(field, str):
        return
    for given in value if isinstance(value, list) else [value]:
        if field in _BOOLEANS and not isinstance(given, bool) and given is not None:
            yield place, f"{field} is true or false, {given!r} equals neither: write it without quotes"
        elif field in _CLOSED and isinstance(given, str) and given not in _CLOSED[field]:
            yield place, f"{field} is never {given!r}: {_meant(given, _CLOSED[field])}"
        elif field == "outcome" and isinstance(given, str):
            yield from _if_nearly(given, outcomes, place)


def _if_nearly(given: str, known: Iterable[str], place: Path) -> Iterator[tuple[Path, str]]:
    names = {name.upper(): name for name in known}
    if given in names.values():
        return
    close = difflib.get_close_matches(given.upper(), names, n=1, cutoff=0.9)
    if close:
        yield place, f"{given!r} is nearly {names[close[0]]}; did you mean that? If not, choose a name less like it"


def _meant(given: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(given.upper(), known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"write one of {', '.join(known)}"

"""Checks across a plan: does the metric exist, is an id used twice, do two places contradict each other?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sidecar.policy.currency import known_currency
from sidecar.policy.tree import Path, entries


def crosscheck(plan: Any) -> Iterator[tuple[Path, str]]:
    """What is wrong between the parts of a plan: (path, message).

    Works on the unchecked tree, so that these problems are told together with those of the models.
    """
    if not isinstance(plan, Mapping):
        return
    for place in ("metrics", "charges", "signals"):
        yield from _twice(plan, place)
    metrics = {entry.get("id") for _, entry in entries(plan.get("metrics"))}
    for index, charge in entries(plan.get("charges")):
        named = charge.get("metrics")
        for position, metric in enumerate(named if isinstance(named, list) else []):
            if metric not in metrics:
                yield (
                    ("charges", index, "metrics", position),
                    f"no metric has the id {metric!r}; there are: {_listed(metrics)}",
                )
    if plan.get("pricing") is not None and plan.get("charges"):
        yield ("pricing",), "pricing is a shorthand for charges: keep one of the two"
    yield from _currencies(plan)
    yield from _windows_where_none_are(plan)


def _currencies(plan: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    pricing = plan.get("pricing")
    inner = pricing.get("currency") if isinstance(pricing, Mapping) else None
    outer = plan.get("currency")
    if isinstance(inner, str) and not known_currency(inner):
        yield ("pricing", "currency"), f"{inner!r} is no ISO 4217 currency code: write one like USD or EUR"
    if inner is not None and outer is not None and inner != outer:
        yield ("pricing", "currency"), f"{inner} contradicts the plan's currency {outer}: keep one"


def _windows_where_none_are(plan: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """UNIQUE_WITHIN_WINDOW compares events, which only a metric has."""
    for place, inside in (("charges", "when"), ("signals", "conditions")):
        for index, entry in entries(plan.get(place)):
            for position, condition in entries(entry.get(inside)):
                if condition.get("operator") == "UNIQUE_WITHIN_WINDOW":
                    yield (
                        (place, index, inside, position, "operator"),
                        "UNIQUE_WITHIN_WINDOW belongs into a metric's filter_conditions",
                    )


def _twice(plan: Mapping[str, Any], place: str) -> Iterator[tuple[Path, str]]:
    seen: set[Any] = set()
    for index, entry in entries(plan.get(place)):
        identifier = entry.get("id")
        if isinstance(identifier, str):
            if identifier in seen:
                yield (place, index, "id"), f"the id {identifier!r} is used twice: change one"
            seen.add(identifier)


def _listed(names: set[Any]) -> str:
    return ", ".join(sorted(str(name) for name in names if name is not None)) or "none"

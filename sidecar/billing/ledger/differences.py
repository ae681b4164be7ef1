"""What rows that have to do with each other add to the sums of their customers, with and without the newest of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import localcontext
from functools import cached_property
from typing import Any

from sqlalchemy.engine import RowMapping

from sidecar.billing.ledger.entries import Decision, decided
from sidecar.billing.rating.account import Account, Customer, Row
from sidecar.billing.rating.counts import Change, Counts, counts
from sidecar.billing.rating.llm_cost import PriceHistory, shipped_history
from sidecar.billing.rating.movements import Books, Movements, Place, State, Units, added, components, less
from sidecar.billing.rating.price import EXACT
from sidecar.billing.rating.sections import Section, SectionsOf
from sidecar.billing.rating.usage import Coupling

SUMMED_AS = 3  # what sums hold: another number makes all that were made before outdated
Noted = set[tuple[str, int]]  # an outcome, and 0 or the number of a decision about it
Sums = dict[tuple[Place, State], Units]


@dataclass
class Group:
    """Rows that have to do with each other, and which of them, and of the decisions about them, are pending."""

    rows: list[RowMapping] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    noted: Noted = field(default_factory=set)
    prices: PriceHistory = field(default_factory=shipped_history)

    @cached_property
    def now(self) -> tuple[Row, ...]:
        """With everything."""
        return decided(self.rows, self.decisions)

    def before(self) -> tuple[Row, ...]:
        """Without what is pending."""
        rows = [row for row in self.rows if (row["id"], 0) not in self.noted]
        taken = [one for one in self.decisions if (one.outcome_id, one.number) not in self.noted]
        return decided(rows, taken)


@dataclass
class Worked:
    """What some rows of a customer add to its invoices and summaries."""

    movements: Sums = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)


@dataclass(frozen=True, slots=True)
class Difference:
    """What pending notes add to these."""

    movements: Sums
    counts: Change


def worked_out(
    rows: Sequence[Row],
    prices: PriceHistory,
    coupling: Coupling,
    sections_of: Mapping[str, SectionsOf],
    *,
    count: bool = True,
) -> dict[str, Worked]:
    """Of the customers whose sections are given, by some rows; without `count` of their invoices alone."""
    found = {name: Counts() for name in sections_of}
    moved: dict[str, list[Movements]] = {name: [] for name in sections_of}
    with localcontext(EXACT):
        for shadow in (False, True) if count else (False,):
            for part in _parts([row for row in rows if row.shadow == shadow], coupling):
                for name in {row.customer for row in part} & sections_of.keys():
                    account = Account(Customer(name), part, shadow, prices)
                    books = Books(account, sections_of[name])
                    if count:
                        found[name].add(counts(account, sections_of[name], books))
                    if not shadow:
                        moved[name].append(books.movements())
        return {name: Worked(added(moved[name]), found[name]) for name in sections_of}


def _parts(rows: Sequence[Row], coupling: Coupling) -> Iterator[tuple[Row, ...]]:
    """What is tied together, and each customer's rows that nothing ties."""
    alone, *tied = components(rows, coupling)
    by_customer: dict[str, list[Row]] = {}
    for row in alone:
        by_customer.setdefault(row.customer, []).append(row)
    yield from map(tuple, by_customer.values())
    yield from tied


def differences(
    group: Group, coupling: Coupling, sections_of: Mapping[str, SectionsOf], *, count: bool = True
) -> dict[str, Difference]:
    """What the pending notes of a group add to what the customers have whose sections are given."""
    now = worked_out(group.now, group.prices, coupling, sections_of, count=count)
    before = worked_out(group.before(), group.prices, coupling, sections_of, count=count)
    with localcontext(EXACT):
        return {
            name: Difference(
                added([now[name].movements, less(before[name].movements)]),
                Change.between(before[name].counts, now[name].counts),
            )
            for name in sections_of
        }


def basis(cut: Iterable[Section]) -> str | None:
    """By what a period is rated and summed up; None when its plans must see all rows at once."""
    found: list[Any] = [SUMMED_AS]
    for section in cut:
        if section.plan.coupling == "account":
            return None
        found.append([section.start_us, section.plan.digest, _facts(section)])
    return json.dumps(found, separators=(",", ":"), sort_keys=True)


def _facts(section: Section) -> list[Any]:
    """What the plan looks at in the customer, version by version."""
    customer, fields = section.customer, sorted(section.plan.customer_fields)
    found: list[Any] = []
    if not fields or not customer.attributed:
        return found
    for version in customer.versions:
        facts = [_lookup(version.facts, path) for path in fields]
        if not found or found[-1][1] != facts or version.effective_us < found[-1][0]:
            found.append([version.effective_us, facts])
    return found


def _lookup(facts: Any, path: tuple[str, ...]) -> Any:
    return facts if not path or not isinstance(facts, Mapping) else _lookup(facts.get(path[0]), path[1:])

"""How many units of a meter each outcome brings, as the ledger stands now. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext

from sidecar.billing.exports.config import Meter
from sidecar.billing.rating.account import Account, Row
from sidecar.billing.rating.movements import Books
from sidecar.billing.rating.price import EXACT, ZERO
from sidecar.billing.rating.sections import Section, SectionsOf


@dataclass(frozen=True, slots=True)
class Part:
    """Units that an outcome brings to a metric of the plan with this id."""

    row: Row
    plan: str
    metric: str
    units: Decimal


def counted(account: Account, sections_of: SectionsOf) -> list[Part]:
    """What every standing row of an account brings to every metric of the plan that rates it.

    Shadow, held, unattributed and unbillable rows bring nothing, nor does what was reversed or replaced. Free units,
    tiers, trials and caps are prices: a target has its own.
    """
    standing = [row for row in account.chargeable if row.id not in account.gone]
    books = Books(account, sections_of)
    by_section: dict[int, tuple[Section, list[Row]]] = {}
    for row in standing:
        section = books.section_of(row)
        by_section.setdefault(section.start_us, (section, []))[1].append(row)
    found: list[Part] = []
    with localcontext(EXACT):
        for start_us, (section, rows) in sorted(by_section.items()):
            plan, customer = section.plan, section.customer
            earlier = [row for row in standing if row.at_us < start_us] if plan.windowed else []
            facts = [(row, {**row.data, "customer": customer.as_of(row.at_us)}) for row in (*earlier, *rows)]
            for name, meter in plan.meters.items():
                passing = meter.passing(facts[: len(earlier)], facts[len(earlier) :])
                found += [
                    Part(use.row, section.plan_id, name, use.units) for use in meter.units(passing) if use.units != ZERO
                ]
    return found


def metered(parts: Iterable[Part], meter: Meter) -> dict[str, Decimal]:
    """A meter's units by outcome."""
    found: dict[str, Decimal] = {}
    for part in parts:
        if part.metric in meter.metrics and (meter.plans is None or part.plan in meter.plans):
            found[part.row.id] = EXACT.add(found.get(part.row.id, ZERO), part.units)
    return found


def changes(now: Mapping[str, Decimal], written: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """By outcome, what must still be written so that all that was written comes to what is counted now."""
    found = {}
    for outcome in now.keys() | written.keys():
        change = EXACT.subtract(now.get(outcome, ZERO), written.get(outcome, ZERO))
        if change:
            found[outcome] = change
    return found

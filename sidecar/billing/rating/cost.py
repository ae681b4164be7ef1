"""What a section costs at a state of its books: the one quantity of which all amounts are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal, localcontext

from sidecar.billing.rating.feeding import limited
from sidecar.billing.rating.movements import DEPEND, ENTERED, NONE, PAID, TAKEN_BACK, Movements, Place, State, Units
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT, ZERO, Price, price, round_amount
from sidecar.billing.rating.sections import Section, SectionsOf
from sidecar.policy.plan import Charge


@dataclass(frozen=True, slots=True)
class Line:
    """One charge of one section. Units are never below zero, whatever was summed."""

    charge: Charge
    quantity: Decimal
    trial: Decimal
    outcomes: int
    price: Price


@dataclass(frozen=True, slots=True)
class Cost:
    """`subtotal` is the sum of the lines; `payable` what the guardrails make of it."""

    section: Section
    lines: tuple[Line, ...]
    subtotal: Decimal
    capped: Decimal
    payable: Decimal

    @property
    def currency(self) -> str:
        """In which the amounts are."""
        return self.section.plan.currency


@dataclass(frozen=True, slots=True)
class Change:
    """What a section of an earlier period (or of this one) costs more, or less, by what happened in this one."""

    section: Section
    amount: Decimal

    @property
    def currency(self) -> str:
        """In which the amount is."""
        return self.section.plan.currency


@dataclass(frozen=True, slots=True)
class Charged:
    """Outcomes that a period's invoice charges: `entered` on its lines and adjustments, `taken_back` in its credits.

    Not `exact`, where a plan's free units are not counted in outcomes: then as many are charged as of its units.
    """

    entered: int = 0
    taken_back: int = 0
    exact: bool = True

    @property
    def net(self) -> int:
        """What stands."""
        return self.entered - self.taken_back

    def __add__(self, other: Charged) -> Charged:
        return Charged(self.entered + other.entered, self.taken_back + other.taken_back, self.exact and other.exact)


NO_CHARGE = Charged()


class Costs:
    """The costs of an account's sections, by the movements of its units."""

    def __init__(self, sections_of: SectionsOf, movements: Movements) -> None:
        self.sections_of = sections_of
        self._moved: dict[int, list[tuple[State, str, Units]]] = {}
        for (place, state), units in movements.items():
            if not units:
                continue  # sums keep what has come to nothing
            self._moved.setdefault(place.start_us, []).append((state, place.charge, units))

    def gross(self, period: Period) -> list[Cost]:
        """What each section of a period costs before anything is taken back in it."""
        return [self.at(section, State(period, ENTERED)) for section in self.sections_of(period)]

    def adjustments(self, period: Period) -> list[Change]:
        """What earlier sections cost more because events came after their period was closed."""
        before, now = State(period, 0), State(period, ENTERED)
        return [change for change in self._changes(before, now) if change.section.period < period]

    def credits(self, period: Period) -> list[Change]:
        """What this and earlier sections no longer cost because of what was taken back in the period."""
        changes = self._changes(State(period, ENTERED), State(period, TAKEN_BACK))
        return [Change(change.section, -change.amount) for change in changes]

    def explained(self, period: Period, found: Mapping[Place, Decimal]) -> bool:
        """Whether what is taken back in a period moves the units that were `found`, of charges paid by units."""
        moved: dict[Place, Decimal] = {}
        for start in self._moved_between(State(period, ENTERED), State(period, TAKEN_BACK)):
            counting = {charge.id for charge in self._section(start).plan.charges if charge.model != "FLAT"}
            for at, name, units in self._moved[start]:
                if at == State(period, TAKEN_BACK) and name in counting and units.units:
                    moved[Place(start, name)] = units.units
        return moved == {place: units for place, units in found.items() if units}

    def charged(self, period: Period) -> Charged:
        """How many outcomes the invoice charges, in the same three steps as its amounts."""
        found = NO_CHARGE
        before, entered, after = State(period, 0), State(period, ENTERED), State(period, TAKEN_BACK)
        with localcontext(EXACT):
            for start in self._moved_between(before, after):
                section = self._section(start)
                steps = [self._paid_for(section, state) for state in (before, entered, after)]
                (was, _), (most, _), (left, _) = steps
                found += Charged(most - was, most - left, all(exact for _, exact in steps))
        return found

    def _paid_for(self, section: Section, state: State) -> tuple[int, bool]:
        """How many outcomes of a section are paid for at a state, and whether that is exact.

        Of those that depend on free units, where each brought one unit, all but the free units are. Else nobody can
        tell from sums which were within them: the same share of them as of the units.
        """
        total = self._total(section, state)
        paid, depend = (max(0, total.get(name, NONE).outcomes) for name in (PAID, DEPEND))
        charges = [charge for charge in section.plan.charges if limited(charge)]
        units = {charge.id: max(ZERO, total.get(charge.id, NONE).units) for charge in charges}
        used = sum(units.values(), ZERO)
        if not depend or not used:
            return paid, True
        single = all(section.plan.counts_outcomes(charge) for charge in charges) and used == depend
        # A unit that the free ones do not cover whole is paid for.
        free = {charge.id: charge.included_free.to_integral_value(ROUND_FLOOR) for charge in charges}
        beyond = sum((max(ZERO, units[charge.id] - free[charge.id]) for charge in charges), ZERO)
        return (paid + int(beyond), True) if single else (paid + round(depend * beyond / used), False)

    def _total(self, section: Section, state: State) -> dict[str, Units]:
        total: dict[str, Units] = {}
        for moved, name, units in self._moved.get(section.start_us, ()):
            if moved <= state:
                total[name] = total.get(name, NONE) + units
        return total

    def at(self, section: Section, state: State) -> Cost:
        """What a section costs at a state."""
        total = self._total(section, state)
        plan, customer = section.plan, section.customer
        # Nobody has heard of somebody who is not registered before an outcome counts.
        known = bool(total) or customer.registered_by(section.period.end_us)
        due = known and plan.customer_in(customer, section.end_us)
        lines = []
        for charge in plan.charges:
            units = total.get(charge.id, NONE)
            quantity = max(ZERO, units.units)
            if charge.model == "FLAT":
                quantity = Decimal(1) if due and plan.flat_due(charge, customer, section.end_us) else ZERO
            priced = price(charge, quantity, plan.currency)
            lines.append(Line(charge, quantity, max(ZERO, units.trial), units.outcomes, priced))
        subtotal = sum((line.price.amount for line in lines), round_amount(ZERO, plan.currency))
        rails = plan.plan.guardrails
        capped = payable = subtotal
        if rails.max_spend_behavior == "CAP" and rails.max_spend_cap is not None:
            capped = payable = min(subtotal, round_amount(rails.max_spend_cap, plan.currency))
        if due:
            payable = max(payable, round_amount(rails.min_spend, plan.currency))
        return Cost(section, tuple(lines), subtotal, capped, payable)

    def _changes(self, before: State, after: State) -> Iterator[Change]:
        for start in self._moved_between(before, after):
            section = self._section(start)
            amount = self.at(section, after).payable - self.at(section, before).payable
            if amount:
                yield Change(section, amount)

    def _moved_between(self, before: State, after: State) -> list[int]:
        """Where the sections begin of which something moves after one state and up to another."""
        return [start for start in sorted(self._moved) if any(before < at <= after for at, _, _ in self._moved[start])]

    def _section(self, start_us: int) -> Section:
        return next(one for one in self.sections_of(Period.of(start_us)) if one.start_us == start_us)

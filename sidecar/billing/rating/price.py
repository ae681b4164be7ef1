"""What a number of units costs under one charge. Exact; rounding to the minor unit happens once, here."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Literal

from sidecar.policy.currency import minor_unit
from sidecar.policy.plan import Charge

ZERO = Decimal(0)
# Wide enough that no product or sum of what plans and events may hold is ever rounded.
EXACT = Context(prec=160)


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the billed units at one price: `rate` per unit or, for packages, per package; `flat` comes on top."""

    units: Decimal
    rate: Decimal
    flat: Decimal = ZERO
    per: Literal["unit", "package", "period"] = "unit"

    @property
    def amount(self) -> Decimal:
        """Exact cost of this part."""
        return EXACT.add(EXACT.multiply(self.units, self.rate), self.flat)


@dataclass(frozen=True, slots=True)
class Price:
    """`free` + `billed` (+ what is beyond the free units and not charged) is the quantity; `amount` is rounded."""

    free: Decimal
    billed: Decimal
    steps: tuple[Step, ...]
    amount: Decimal


def price(charge: Charge, quantity: Decimal, currency: str) -> Price:
    """Price the units of a charge (FLAT: 1 when it is due, else 0)."""
    if charge.model == "FLAT":
        steps: tuple[Step, ...] = (Step(quantity, charge.rate or ZERO, per="period"),) if quantity else ()
        return Price(ZERO, quantity, steps, _rounded(steps, currency))
    free = min(quantity, charge.included_free)
    billed = EXACT.subtract(quantity, free) if charge.overage_behavior == "CHARGE" else ZERO
    steps = _steps(charge, billed)
    return Price(free, billed, steps, _rounded(steps, currency))


def round_amount(amount: Decimal, currency: str) -> Decimal:
    """Half-even to the currency's minor unit."""
    return amount.quantize(minor_unit(currency), rounding=ROUND_HALF_EVEN, context=EXACT)


def _rounded(steps: tuple[Step, ...], currency: str) -> Decimal:
    total = ZERO
    for step in steps:
        total = EXACT.add(total, step.amount)
    return round_amount(total, currency)


def _steps(charge: Charge, billed: Decimal) -> tuple[Step, ...]:
    if billed <= 0:
        return ()
    rate = charge.rate or ZERO
    match charge.model:
        case "PACKAGE":
            size = charge.package_size or Decimal(1)
            whole, rest = EXACT.divmod(billed, size)
            return (Step(whole + (1 if rest else 0), rate, per="package"),)
        case "VOLUME":
            tier = next(tier for tier in charge.tiers if tier.up_to is None or billed <= tier.up_to)
            return (Step(billed, tier.rate, tier.flat),)
        case "GRADUATED":
            return _graduated(charge, billed)
        case _:
            return (Step(billed, rate),)


def _graduated(charge: Charge, billed: Decimal) -> tuple[Step, ...]:
    steps = []
    below = ZERO
    for tier in charge.tiers:
        top = billed if tier.up_to is None else min(billed, tier.up_to)
        if top > below:
            steps.append(Step(EXACT.subtract(top, below), tier.rate, tier.flat))
            below = top
    return tuple(steps)

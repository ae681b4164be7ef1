"""Which events of a section had free units: the first ones by time, until these are used up.

An allowance keeps of each charge the uses that were free and the first that was not. What comes later in time changes
nothing and is not kept, so an allowance is as large as the free units are many. Where these are very many, only how
much was used is kept: that tells the free events as long as all of them are.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from decimal import Decimal

import orjson

from sidecar.billing.rating.counts import Change, FreeUse, Span
from sidecar.billing.rating.price import EXACT, ZERO

USES_MAX = 10_000
_UNKNOWN = Decimal("Infinity")


class LostTrackError(Exception):
    """Something that was free is no more there, and what takes its place was not kept: begin anew with all uses."""


@dataclass
class Allowance:
    """Of one section, live or shadow. `many` has the units used by charge once there were too many uses to keep."""

    uses: dict[str, list[FreeUse]] = field(default_factory=dict)
    many: dict[str, Decimal] | None = None
    days: Counter[str] = field(default_factory=Counter)  # with `many`: events that depend on it

    @classmethod
    def read(cls, text: str) -> Allowance:
        """As `text` wrote it."""
        plain = orjson.loads(text)
        many = plain["many"]
        return cls(
            {
                charge: [FreeUse(at, one, index, Decimal(units), day) for at, one, index, units, day in uses]
                for charge, uses in plain["uses"].items()
            },
            None if many is None else {charge: Decimal(units) for charge, units in many.items()},
            Counter(plain["days"]),
        )

    def text(self) -> str:
        """For a database."""
        plain = {
            "uses": {
                charge: [(one.at_us, one.id, one.nth, str(one.units), one.day) for one in uses]
                for charge, uses in self.uses.items()
            },
            "many": None if self.many is None else {charge: str(units) for charge, units in self.many.items()},
            "days": self.days,
        }
        return orjson.dumps(plain).decode()

    def change(self, change: Change, span: Span, free: Mapping[str, Decimal]) -> None:
        """Take uses of one section out and in; `free` are its charges' free units. Raises LostTrackError."""
        removed = {charge: uses for (at, charge), uses in change.removed.items() if at == span}
        added = {charge: uses for (at, charge), uses in change.added.items() if at == span}
        if self.many is not None:
            for charge in removed.keys() | added.keys():
                gone, new = _used(removed.get(charge, ())), _used(added.get(charge, ()))
                self.many[charge] = EXACT.add(self.many.get(charge, ZERO), EXACT.subtract(new, gone))
            self.days.update({day: number for (at, day), number in change.depending.items() if at == span})
            return
        for charge in removed.keys() | added.keys():
            self._change(charge, removed.get(charge, set()), added.get(charge, ()), free[charge])
        if sum(map(len, self.uses.values())) > USES_MAX:
            used = {charge: _used(kept) for charge, kept in self.uses.items()}
            # What came after the free units was not kept: more than was free, but nobody knows how much.
            self.many = {charge: units if units <= free[charge] else _UNKNOWN for charge, units in used.items()}
            depending = {one.id: one.day for kept in self.uses.values() for one in kept if one.day is not None}
            self.days, self.uses = Counter(depending.values()), {}

    def _change(self, charge: str, removed: AbstractSet[FreeUse], added: Iterable[FreeUse], free: Decimal) -> None:
        kept = [one for one in self.uses.get(charge, ()) if one not in removed]
        was_over = _used(self.uses.get(charge, ())) > free
        last = _order(self.uses[charge][-1]) if was_over else None
        for one in added:
            if last is None or _order(one) <= last:
                insort(kept, one, key=_order)
        if was_over and _used(kept) <= free:
            raise LostTrackError
        self.uses[charge] = _trimmed(kept, free)

    def within(self, free: Mapping[str, Decimal]) -> Counter[str] | None:
        """How many of the events that depend on it had free units, by day; None when that was not kept."""
        if self.many is not None:
            return Counter(self.days) if all(units <= free[charge] for charge, units in self.many.items()) else None
        found: dict[str, str] = {}
        for charge, kept in self.uses.items():
            used = ZERO
            for one in kept:
                used = EXACT.add(used, one.units)
                if used <= free[charge] and one.day is not None:
                    found[one.id] = one.day
        return Counter(found.values())


def _used(kept: Iterable[FreeUse]) -> Decimal:
    total = ZERO
    for one in kept:
        total = EXACT.add(total, one.units)
    return total


def _order(use: FreeUse) -> tuple[int, str, int]:
    return use.at_us, use.id, use.nth


def _trimmed(kept: list[FreeUse], free: Decimal) -> list[FreeUse]:
    """Up to the first that was not free."""
    used = ZERO
    for number, one in enumerate(kept, 1):
        used = EXACT.add(used, one.units)
        if used > free:
            return kept[:number]
    return kept

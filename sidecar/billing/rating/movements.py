"""How the units of an account move, from one state of its books to the next.

A period's books have two states: with everything that entered (phase 1), and without what was taken back in it
(phase 2). What a section of an earlier period counts changes in either of them: late events enter, reversals take back,
and where one event takes or leaves the place of another in a window, that one follows.

A movement is the difference that a state makes to the units of one charge of one section. So the units at any state
are the sum of the movements up to it, and since movements are sums over rows that have nothing to do with each other,
those of some rows can be computed apart and added up: that is what the ledger's aggregates are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import NamedTuple

from sidecar.billing.rating.account import Account, Row
from sidecar.billing.rating.feeding import fed
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT, ZERO
from sidecar.billing.rating.sections import Section, SectionsOf
from sidecar.billing.rating.usage import Coupling, Usage

ENTERED, TAKEN_BACK = 1, 2


class State(NamedTuple):
    """Of the books: a period, and whether what was taken back in it still stands (phase 1) or not (2)."""

    period: Period
    phase: int


class Place(NamedTuple):
    """What moves: the units of a charge of the section that begins at an instant.

    Beside its charges a section has two places that count outcomes: those `PAID` for, and those that `DEPEND` on how
    far its free units reach, which no part of an account can tell.
    """

    start_us: int
    charge: str


PAID, DEPEND = "=paid", "=depend"  # no charge has such an id


@dataclass(frozen=True, slots=True)
class Units:
    """Units outside and inside the trial, and how many outcomes brought them. As a movement, any may be negative."""

    units: Decimal = ZERO
    trial: Decimal = ZERO
    outcomes: int = 0

    def __add__(self, other: Units) -> Units:
        return Units(
            EXACT.add(self.units, other.units), EXACT.add(self.trial, other.trial), self.outcomes + other.outcomes
        )

    def __sub__(self, other: Units) -> Units:
        return Units(
            EXACT.subtract(self.units, other.units),
            EXACT.subtract(self.trial, other.trial),
            self.outcomes - other.outcomes,
        )

    def __bool__(self) -> bool:
        return bool(self.units or self.trial or self.outcomes)


NONE = Units()
Movements = Mapping[tuple[Place, State], Units]


def added(parts: Iterable[Movements]) -> dict[tuple[Place, State], Units]:
    """The movements of several parts of an account together, without those that come to nothing."""
    total: dict[tuple[Place, State], Units] = {}
    for part in parts:
        for key, units in part.items():
            total[key] = total[key] + units if key in total else units
    return {key: units for key, units in total.items() if units}


def less(before: Movements) -> dict[tuple[Place, State], Units]:
    """The movements that undo these."""
    return {key: NONE - units for key, units in before.items()}


class Books:
    """Who counts what at each state of an account."""

    def __init__(self, account: Account, sections_of: SectionsOf) -> None:
        self.account = account
        self.sections_of = sections_of
        self._usage: dict[tuple[int, tuple[str, ...]], dict[str, Usage]] = {}
        self._summed: dict[int, dict[str, Units]] = {}  # by the identity of a value of `_usage`

    def movements(self) -> dict[tuple[Place, State], Units]:
        """All movements of the account's rows."""
        before: dict[Place, Units] = {}
        moved: dict[tuple[Place, State], Units] = {}
        for state in self.states():
            now = {
                Place(section.start_us, charge): units
                for section, usages in self.counted(state)
                for charge, units in self._units(section, usages).items()
            }
            for place in before.keys() | now.keys():
                if change := now.get(place, NONE) - before.get(place, NONE):
                    moved[place, state] = change
            before = now
        return moved

    def _units(self, section: Section, usages: dict[str, Usage]) -> dict[str, Units]:
        """By charge, with `PAID` and `DEPEND`; once for what stays as it is in several states."""
        if id(usages) not in self._summed:
            kinds = Counter(fed(section, usages, part=True).values())
            self._summed[id(usages)] = {
                **{charge: Units(one.total, one.trial_total, one.outcomes) for charge, one in usages.items()},
                PAID: Units(outcomes=kinds["charged"]),
                DEPEND: Units(outcomes=kinds["depends"]),
            }
        return self._summed[id(usages)]

    def states(self) -> list[State]:
        """Every state in which a row begins or ceases to count, in order."""
        states = set()
        for row in self.account.chargeable:
            states.add(State(row.counts_from, ENTERED))
            if row.id in self.account.gone:
                states.add(State(self.account.gone[row.id], TAKEN_BACK))
        return sorted(states)

    def counted(self, state: State) -> Iterable[tuple[Section, dict[str, Usage]]]:
        """The usage by charge of every section that has rows at a state."""
        present = [row for row in self.account.chargeable if self._stands(row, state)]
        by_section: dict[int, tuple[Section, list[Row]]] = {}
        for row in present:
            section = self.section_of(row)
            by_section.setdefault(section.start_us, (section, []))[1].append(row)
        for start, (section, rows) in by_section.items():
            yield section, self._usage_of(section, [row for row in present if row.at_us < start], rows)

    def section_of(self, row: Row) -> Section:
        """The section in which a row's time lies."""
        cut = self.sections_of(row.period)
        return next(section for section in cut if row.at_us < section.end_us)

    def _stands(self, row: Row, state: State) -> bool:
        if row.counts_from > state.period:
            return False
        gone = self.account.gone.get(row.id)
        return gone is None or gone > state.period or (gone == state.period and state.phase == ENTERED)

    def _usage_of(self, section: Section, earlier: list[Row], rows: list[Row]) -> dict[str, Usage]:
        """Computed once for the same rows: most states change few sections."""
        before = earlier if section.plan.windowed else []
        key = (section.start_us, tuple(row.id for row in (*before, *rows)))
        if key not in self._usage:
            self._usage[key] = section.plan.usage(section.customer, before, rows)
        return self._usage[key]


def parts(account: Account, sections_of: SectionsOf) -> list[Account]:
    """The account cut into parts that have nothing to do with each other, as fine as its plans allow."""
    coupling = _coupling(account, sections_of)
    if coupling == "account":
        return [account]
    return [Account(account.customer, rows, account.shadow) for rows in components(account.rows, coupling) if rows]


def movements_of(account: Account, sections_of: SectionsOf) -> dict[tuple[Place, State], Units]:
    """All movements of an account, from its rows."""
    with localcontext(EXACT):
        return added(Books(part, sections_of).movements() for part in parts(account, sections_of))


def components(rows: Sequence[Row], coupling: Coupling) -> list[tuple[Row, ...]]:
    """Rows by what ties them: their session, the revision that they replace, their conversation if a plan asks.

    Rows that nothing ties to any other, the most by far, come together in the first part: there is nothing between
    them to work out, and many at once are quicker than one by one.
    """
    parent = list(range(len(rows)))
    first: dict[str, int] = {}

    def find(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for index, row in enumerate(rows):
        keys = [f"s{row.session_id}", f"i{row.id}"]
        if row.reverses is not None:
            keys.append(f"i{row.reverses}")
        if coupling == "conversation" and row.conversation:
            keys.append(f"c{row.conversation}")
        for key in keys:
            parent[find(index)] = find(first.setdefault(key, index))
    found: dict[int, list[Row]] = {}
    for index, row in enumerate(rows):
        found.setdefault(find(index), []).append(row)
    tied = [tuple(part) for part in found.values() if len(part) > 1 or part[0].taken_back is not None]
    alone = tuple(part[0] for part in found.values() if len(part) == 1 and part[0].taken_back is None)
    return [alone, *tied]


def widest(couplings: Iterable[Coupling]) -> Coupling:
    """The coupling that holds for all: whatever any of them ties together."""
    order: tuple[Coupling, ...] = ("session", "conversation", "account")
    return max(couplings, key=order.index, default="session")


def _coupling(account: Account, sections_of: SectionsOf) -> Coupling:
    periods = {row.period for row in account.own}
    return widest(section.plan.coupling for period in periods for section in sections_of(period))

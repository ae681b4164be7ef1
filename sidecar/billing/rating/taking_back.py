"""What a period takes back: whose units are others once what ended in it is gone.

One definition for all that is said of it: the names beside a credit, what the page of a line marks, and which revisions
the summary has as `reversed`. Some of what ends leaves its place to another: in a window of their session the next
revision takes it, in a window of their conversation the next session. Nothing is taken back where the other one is
charged in the same way. A credit is of one section, and so is a line: they ask for each section alone. The summary
asks over all sections: a resolution that another of the next month takes the place of is no charge less.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import NamedTuple

from sidecar.billing.rating.account import Account, Row
from sidecar.billing.rating.movements import ENTERED, TAKEN_BACK, Books, Place, State, parts
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT, ZERO
from sidecar.billing.rating.sections import SectionsOf

Counting = Mapping[tuple[Place, str, bool], tuple[Row, Decimal]]
Ties = Callable[["Shift"], Iterable[Hashable]]


class Shift(NamedTuple):
    """By how many units an outcome brings more to a place once what a period takes back is gone; mostly below zero.

    `ended`: it is itself among what is gone.
    """

    place: Place
    row: Row
    units: Decimal
    trial: bool
    ended: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """Shifts after each that came has taken the place of one that left: what is left of those below zero (`taken`) and
    above it (`instead`), and who `followed` whom. The units of both together are those of all shifts.
    """

    taken: list[Shift] = field(default_factory=list)
    instead: list[Shift] = field(default_factory=list)
    followed: list[tuple[Shift, Shift]] = field(default_factory=list)

    def add(self, other: Settled) -> None:
        """Another part of the account."""
        self.taken.extend(other.taken)
        self.instead.extend(other.instead)
        self.followed.extend(other.followed)

    def moved(self) -> Mapping[Place, Decimal]:
        """The units that all of them move at each place, outside the trial."""
        total: dict[Place, Decimal] = {}
        for shift in (*self.taken, *self.instead):
            if not shift.trial:
                total[shift.place] = EXACT.add(total.get(shift.place, ZERO), shift.units)
        return total


def taken_back(account: Account, sections_of: SectionsOf, period: Period) -> Settled:
    """What a period takes back of each section, of all of an account."""
    found = Settled()
    for books in _ending(account, sections_of, period):
        found.add(taken_back_of(books, period))
    return found


def taken_back_of(books: Books, period: Period) -> Settled:
    """The same of books, of an account or of a part of one."""
    return _settled(books, _shifts(books, period), lambda shift: (shift.place, shift.trial))


def _ending(account: Account, sections_of: SectionsOf, period: Period) -> Iterator[Books]:
    """The parts of an account of which anything ends in a period, a few of many."""
    for part in parts(account, sections_of):
        if period in part.gone.values():
            yield Books(part, sections_of)


def _shifts(books: Books, period: Period) -> list[Shift]:
    """Of charges that are paid by units, in the order of time: a flat fee says nothing of the outcomes it covers."""
    ended = {row.id for row in books.account.chargeable if books.account.gone.get(row.id) == period}
    if not ended:
        return []
    before, after = (_counting(books, State(period, phase)) for phase in (ENTERED, TAKEN_BACK))
    found = []
    for key in before.keys() | after.keys():
        (place, identifier, trial), (row, _) = key, before.get(key) or after[key]
        was, now = (state[key][1] if key in state else ZERO for state in (before, after))
        if now != was:
            found.append(Shift(place, row, EXACT.subtract(now, was), trial, identifier in ended))
    return sorted(found, key=lambda shift: (shift.row.order, shift.place, shift.trial))


def _counting(books: Books, state: State) -> Counting:
    """What each outcome brings to each place, inside and outside the trial."""
    found: dict[tuple[Place, str, bool], tuple[Row, Decimal]] = {}
    for section, usages in books.counted(state):
        for charge in section.plan.charges:
            if charge.model != "FLAT":
                usage = usages[charge.id]
                for trial, uses in ((False, usage.uses), (True, usage.trial)):
                    for use in uses:
                        key = (Place(section.start_us, charge.id), use.row.id, trial)
                        found[key] = (use.row, EXACT.add(found[key][1] if key in found else ZERO, use.units))
    return found


def _settled(books: Books, shifts: Sequence[Shift], scope: Callable[[Shift], Hashable]) -> Settled:
    """Who comes takes the place of one that leaves within the same scope: of its session, else in a window with it."""

    def session(shift: Shift) -> Iterable[Hashable]:
        return (shift.row.session_id,)

    def windows(shift: Shift) -> Iterable[Hashable]:
        return books.section_of(shift.row).ties(shift.place.charge, shift.row)

    left, followed = [shift.units for shift in shifts], list[tuple[Shift, Shift]]()
    with localcontext(EXACT):
        for ties in (session, windows):
            if not any(units > 0 for units in left):
                break
            leaving = _leaving(shifts, left, scope, ties)
            for came, shift in enumerate(shifts):
                for tie in ties(shift) if left[came] > 0 else ():
                    followed += [(shifts[gone], shift) for gone in _follow(left, came, leaving[scope(shift), tie])]
    rest = [shift._replace(units=units) for shift, units in zip(shifts, left, strict=True)]
    return Settled([one for one in rest if one.units < 0], [one for one in rest if one.units > 0], followed)


def _leaving(
    shifts: Sequence[Shift], left: Sequence[Decimal], scope: Callable[[Shift], Hashable], ties: Ties
) -> Mapping[Hashable, list[int]]:
    """Those below zero by what ties them to others, the first to follow at the end: what still stands, then by time."""
    found: dict[Hashable, list[int]] = defaultdict(list)
    for index in sorted(range(len(shifts)), key=lambda one: (shifts[one].ended, one), reverse=True):
        if left[index] < 0:
            for tie in ties(shifts[index]):
                found[scope(shifts[index]), tie].append(index)
    return found


def _follow(left: list[Decimal], came: int, leaving: list[int]) -> Iterable[int]:
    """Whose units the one that came takes over; what is left of either is written down."""
    found = []
    while leaving and left[came] > 0:
        gone = leaving[-1]
        units = min(left[came], -left[gone])
        if units > 0:
            left[came], left[gone] = left[came] - units, left[gone] + units
            found.append(gone)
        if left[gone] >= 0:
            leaving.pop()
    return found


def reversing(account: Account, sections_of: SectionsOf, period: Period) -> set[str]:
    """Ids of the revisions that take a charge back in a period, of all of an account."""
    return {identifier for books in _ending(account, sections_of, period) for identifier in reversing_of(books, period)}


def reversing_of(books: Books, period: Period) -> set[str]:
    """The same of books, of an account or of a part of one: where an outcome that counted has no more part in its
    charge, and nothing came in its place in any section, the first revision after it that this charge does not count.

    Judged by the customer's own plans: what a revision takes from another customer is that one's credit alone. Where
    plans differ, the charges that not all of them have stand for each other.
    """
    shifts = _shifts(books, period)
    if not shifts:
        return set()
    common = frozenset.intersection(*(books.section_of(shift.row).plan.paid for shift in shifts))
    settled = _settled(books, shifts, lambda shift: shift.place.charge if shift.place.charge in common else None)
    after, found = _counting(books, State(period, TAKEN_BACK)), set[str]()
    counted = {(place.charge, identifier) for place, identifier, _ in after}
    for shift in settled.taken:
        charge = shift.place.charge
        later = [row for row in books.account.later(shift.row) if row.entered <= period]
        first = next((row for row in later if not _would_count(books, period, charge, row)), None)
        if first is None and later:
            last = later[-1]
            stands = books.account.gone.get(last.id, period.next) > period
            if stands and not any((one, last.id) in counted for one in _asked(books, charge, last)):
                first = last  # another has its place in a window
        if first is not None and first.entered == period:
            found.add(first.id)
    return found


def _would_count(books: Books, period: Period, charge: str, row: Row) -> bool:
    """Whether a charge counts a row if nothing else has its place in a window."""
    if row.counts_from > period or not books.account.may_charge(row):
        return False
    section = books.section_of(row)
    usages = section.plan.usage(section.customer, (), [row])
    return any(usages[one].uses or usages[one].trial for one in _asked(books, charge, row))


def _asked(books: Books, charge: str, row: Row) -> AbstractSet[str]:
    """The charge, or any where a row's plan does not have it."""
    paid = books.section_of(row).plan.paid
    return {charge} if charge in paid else paid


def marks(account: Account, sections_of: SectionsOf) -> Mapping[tuple[Place, str], Period]:
    """When the units of outcomes were taken back, by place and id: those that others took over, when theirs were."""
    found: dict[tuple[Place, str], Period] = {}
    for part in parts(account, sections_of):
        books, behind = Books(part, sections_of), dict[tuple[Place, str], list[str]]()
        for period in sorted(set(part.gone.values())):
            settled = taken_back_of(books, period)
            for left, came in settled.followed:
                known = behind.get((left.place, left.row.id), [left.row.id])
                behind.setdefault((came.place, came.row.id), [came.row.id]).extend(known)
            for shift in settled.taken:
                for name in behind.get((shift.place, shift.row.id), [shift.row.id]):
                    found.setdefault((shift.place, name), period)
    return found


class Named(NamedTuple):
    """Outcomes behind a credit: those `taken` back, and those that are charged `instead`, by time and id."""

    taken: Sequence[Row] = ()
    instead: Sequence[Row] = ()


@dataclass(frozen=True, slots=True)
class TakenBack:
    """Outcomes behind a period's credits, by the beginning of the section that a credit is of; `more`: there may be
    others.
    """

    sections: Mapping[int, Named]
    more: bool = False

    @classmethod
    def of(cls, settled: Settled, *, limit: int | None = None, more: bool = False) -> TakenBack:
        """Each once, whichever charges had counted it; those in trial cost nothing. Of either at most `limit`."""
        (taken, cut), (instead, cut_too) = (
            _by_section([shift for shift in some if not shift.trial], limit)
            for some in (settled.taken, settled.instead)
        )
        named = {start: Named(taken.get(start, ()), instead.get(start, ())) for start in taken.keys() | instead.keys()}
        return cls(named, more or cut or cut_too)

    def at(self, start_us: int) -> Named:
        """Those behind the credit of a section."""
        return self.sections.get(start_us, Named())


NOTHING = TakenBack({})


def _by_section(some: Sequence[Shift], limit: int | None) -> tuple[dict[int, list[Row]], bool]:
    """The rows by section, and whether there are more."""
    names = list(dict.fromkeys(shift.row.id for shift in some))
    kept, rows = set(names[:limit]), dict[int, dict[str, Row]]()
    for shift in some:
        if shift.row.id in kept:
            rows.setdefault(shift.place.start_us, {})[shift.row.id] = shift.row
    ordered = {start: sorted(one.values(), key=lambda row: row.order) for start, one in rows.items()}
    return ordered, len(names) > len(kept)

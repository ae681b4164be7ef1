"""What a period takes back: whose units are others once what ended in it is gone.

One definition for all that is said of it: the names beside a credit, what the page of a line marks, and which revisions
the summary has as `reversed`. A session's units may move: in a window of its session a later revision takes the place
of the one that it replaces, perhaps in another section. A credit is of one section, so it has what moved away from
there as taken back. A charge is taken back of a session when its units are others over all sections.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

from sidecar.billing.rating.account import Account, Row
from sidecar.billing.rating.movements import ENTERED, TAKEN_BACK, Books, Place, State, parts
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT, ZERO
from sidecar.billing.rating.sections import SectionsOf
from sidecar.billing.rating.usage import Usage


class Shift(NamedTuple):
    """By how many units an outcome brings more to a place once what a period takes back is gone; mostly below zero.

    `ended`: it is itself among what is gone.
    """

    place: Place
    row: Row
    units: Decimal
    trial: bool
    ended: bool


def shifts(account: Account, sections_of: SectionsOf, period: Period) -> list[Shift]:
    """All of an account. Of charges that are paid by units: a flat fee says nothing of the outcomes that it covers."""
    return [
        shift
        for part in parts(account, sections_of)
        if period in part.gone.values()
        for shift in shifts_in(Books(part, sections_of), period)
    ]


def shifts_in(books: Books, period: Period) -> list[Shift]:
    """The same of books, of an account or a part of one."""
    ended = {row.id for row in books.account.chargeable if books.account.gone.get(row.id) == period}
    if not ended:
        return []
    with localcontext(EXACT):
        before, after = (_units(books, State(period, phase)) for phase in (ENTERED, TAKEN_BACK))
        found = []
        for place, identifier, trial in before | after:
            row, was = before.get((place, identifier, trial), (None, ZERO))
            now_row, now = after.get((place, identifier, trial), (None, ZERO))
            kept = row or now_row
            if kept is not None and now != was:
                found.append(Shift(place, kept, now - was, trial, identifier in ended))
    return found


def _units(books: Books, state: State) -> dict[tuple[Place, str, bool], tuple[Row, Decimal]]:
    """What each outcome brings to each place, inside and outside the trial."""
    found: dict[tuple[Place, str, bool], tuple[Row, Decimal]] = {}
    for section, usages in books.counted(state):
        for charge in section.plan.charges:
            if charge.model != "FLAT":
                usage = usages[charge.id]
                for trial, uses in ((False, usage.uses), (True, usage.trial)):
                    for use in uses:
                        key = (Place(section.start_us, charge.id), use.row.id, trial)
                        found[key] = (use.row, found.get(key, (use.row, ZERO))[1] + use.units)
    return found


def taken_back(found: Sequence[Shift]) -> Iterator[Shift]:
    """Those of outcomes that were taken back, as a credit of one section has it.

    One that never counted is none of them, however it was replaced; nor is one whose next revision took its units over
    in the same section. One whose next revision counts beside it is: a line has the units of both.
    """
    left = _summed(found, lambda shift: (shift.place, shift.row.session_id))
    return (shift for shift in found if shift.ended and left[shift.place, shift.row.session_id])


def reversing(books: Books, period: Period) -> set[str]:
    """Ids of the revisions that take a charge back in a period: the first after an outcome that counted which its
    charge would not count, where the units of its session are others, over all sections, than with that outcome.

    Judged by the customer's own plans: what a revision takes from another customer is that one's credit alone.
    """
    found, taken = shifts_in(books, period), set[str]()
    left = _summed(found, lambda shift: (shift.place.charge, shift.row.session_id))
    for shift in found:
        if shift.ended and left[shift.place.charge, shift.row.session_id]:
            later = [row for row in books.account.later(shift.row) if row.entered <= period]
            first = next((row for row in later if not _would_count(books, period, shift.place.charge, row)), None)
            if first is not None and first.entered == period:
                taken.add(first.id)
    return taken


def _would_count(books: Books, period: Period, charge: str, row: Row) -> bool:
    """Whether a charge counts a row if nothing else has its place in a window. In a section whose plan does not have
    the charge, whether any counts it.
    """
    if row.counts_from > period or row not in books.account.chargeable:
        return False
    section = books.section_of(row)
    usages: Mapping[str, Usage] = section.plan.usage(section.customer, (), [row])
    asked = [usages[charge]] if charge in usages else [
        usages[one.id] for one in section.plan.charges if one.model != "FLAT"
    ]  # fmt: skip
    return any(usage.uses or usage.trial for usage in asked)


def _summed(found: Iterable[Shift], key: Any) -> Mapping[Any, Decimal]:
    total: dict[Any, Decimal] = defaultdict(lambda: ZERO)
    for shift in found:
        total[key(shift)] = EXACT.add(total[key(shift)], shift.units)
    return total


@dataclass(frozen=True, slots=True)
class TakenBack:
    """Outcomes behind a period's credits, by the beginning of the section that a credit is of, each in the order of
    time and id: those `taken` back there, and those that came in their place and are charged `instead`, which is what
    a credit below zero is of. `more`: there may be others.
    """

    taken: Mapping[int, Sequence[Row]]
    instead: Mapping[int, Sequence[Row]]
    more: bool = False

    @classmethod
    def of(cls, found: Sequence[Shift], *, limit: int | None = None, more: bool = False) -> TakenBack:
        """Each once, whichever charges had counted it; those in trial cost nothing. Of either at most `limit`."""
        priced = [shift for shift in found if not shift.trial]
        taken, cut = _by_section(taken_back(priced), limit)
        instead, cut_too = _by_section((one for one in priced if not one.ended and one.units > 0), limit)
        return cls(taken, instead, more or cut or cut_too)

    def named(self, start_us: int, *, below_zero: bool) -> Sequence[Row]:
        """Those behind the credit of a section."""
        return (self.instead if below_zero else self.taken).get(start_us, ())


NOTHING = TakenBack({}, {})


def _by_section(some: Iterable[Shift], limit: int | None) -> tuple[dict[int, list[Row]], bool]:
    """The rows by section, and whether there were more."""
    some = list(some)
    names = list(dict.fromkeys(shift.row.id for shift in some))
    kept, rows = set(names[:limit]), dict[int, dict[str, Row]]()
    for shift in some:
        if shift.row.id in kept:
            rows.setdefault(shift.place.start_us, {})[shift.row.id] = shift.row
    ordered = {start: sorted(one.values(), key=lambda row: row.order) for start, one in rows.items()}
    return ordered, len(names) > len(kept)

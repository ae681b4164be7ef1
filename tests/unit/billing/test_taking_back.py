"""What a period takes back, against a search over all rows: names beside credits, marks on lines, class `reversed`.

The oracle knows rows, from when on each counts and when it is gone, and that in a place (a window) the earliest of
those that stand counts. It asks each place before and after what a month takes back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.billing.rating.account import Account, Customer, CustomerVersion, Row
from sidecar.billing.rating.classes import CLASSES, Classes
from sidecar.billing.rating.invoice import invoice, timestamp
from sidecar.billing.rating.movements import ENTERED, Books, State, parts
from sidecar.billing.rating.periods import DAY_US, Period
from sidecar.billing.rating.sections import Closings, SectionsOf, always, sections
from sidecar.billing.rating.summary import summary
from sidecar.billing.rating.taking_back import marks, reversing_of
from sidecar.billing.rating.usage import RatedPlan
from sidecar.policy.loading import load_plan

MONTHS = [Period(2026, 10), Period(2026, 11), Period(2026, 12), Period(2027, 1)]
OCTOBER, NOVEMBER, DECEMBER, JANUARY = MONTHS
START_US, CHANGE_US = OCTOBER.start_us, NOVEMBER.start_us + 14 * DAY_US
CONVERSATIONS = (None, "x", "x", "x")  # of the sessions
DAYS = (3, 20, 33, 38, 48, 58, 65, 80)  # few, so that much meets


def plan_source(window: str | None, rate: int = 1, charge: str = "c") -> str:
    unique = f", {{field: outcome, operator: UNIQUE_WITHIN_WINDOW, window: {window}}}" if window else ""
    good = "{field: outcome, operator: EQUALS, value: RESOLVED}"
    return (
        f"rate_plan: {{name: p, metrics: [{{id: m{charge}, aggregation: COUNT, filter_conditions: [{good}{unique}]}}], "
        f"charges: [{{id: {charge}, metrics: [m{charge}], model: PER_UNIT, rate: {rate}}}]}}"
    )


def plan_of(window: str | None, rate: int = 1, charge: str = "c") -> RatedPlan:
    return RatedPlan(load_plan(plan_source(window, rate, charge).encode(), "p").plan)


@dataclass(frozen=True)
class Told:
    """One revision: `day` counts from the first of October; `after` are months by which it counts later, or is late."""

    session: int
    revision: int
    day: int
    good: bool
    late: int = 0
    waits: int = 0
    reversed_in: int | None = None


@st.composite
def stories(draw, *, plain: bool = False, ordered: bool = False) -> list[Told]:
    """Unless `plain`, some come late, wait for an operator, or are taken back by one. A revision may be from before the
    one that it replaces, unless `ordered`.
    """
    later = st.just(0) if plain else st.sampled_from([0, 0, 0, 1, 2])
    by_operator = st.none() if plain else st.sampled_from([None, None, None, 0, 1, 2])
    told = []
    for session in range(len(CONVERSATIONS)):
        days = draw(st.lists(st.sampled_from(DAYS), min_size=1, max_size=3))
        for revision, day in enumerate(sorted(days) if ordered else days):
            good, late, waits = draw(st.sampled_from([True, True, False])), draw(later), draw(later)
            told.append(Told(session, revision, day, good, late, waits, draw(by_operator)))
    return told


def on(period: Period, months: int) -> Period:
    return period if months == 0 else on(period.next, months - 1)


def row_of(t: Told) -> Row:
    at_us = START_US + t.day * DAY_US + t.session * 1_000_000
    entered = on(Period.of(at_us), t.late)
    counts = on(entered, t.waits)
    return Row(
        id=f"out_{t.session}_{t.revision}", customer="c", session_id=f"s{t.session}", revision=t.revision, at_us=at_us,
        data={
            "session_id": f"s{t.session}", "conversation": CONVERSATIONS[t.session],
            "outcome": "RESOLVED" if t.good else "UNRESOLVED",
        },
        reverses=f"out_{t.session}_{t.revision - 1}" if t.revision else None,
        conversation=CONVERSATIONS[t.session], late=entered if t.late else None,
        counts=counts if t.waits else None, was_held=t.waits > 0,
        taken_back=None if t.reversed_in is None else on(counts, t.reversed_in),
    )  # fmt: skip


@dataclass
class Oracle:
    """`rates` are those of the sections by their beginning."""

    rows: list[Row]
    window: str | None
    rates: dict[int, int]

    def later(self, row: Row) -> list[Row]:
        same = [other for other in self.rows if other.session_id == row.session_id]
        return sorted((other for other in same if other.revision > row.revision), key=lambda other: other.revision)

    def gone(self, row: Row) -> Period | None:
        ends = [other.entered for other in self.later(row)] + ([row.taken_back] if row.taken_back else [])
        return max(row.counts_from, min(ends)) if ends else None

    def place(self, row: Row) -> str:
        if self.window == "SESSION" or (self.window and row.conversation is None):
            return row.session_id
        return row.conversation if self.window else row.id

    def section(self, row: Row) -> int:
        return max(start for start in self.rates if start <= row.at_us)

    def counted(self, month: Period, *, after: bool) -> dict[str, Row]:
        """Who counts in each place, before or after what the month takes back."""
        found: dict[str, Row] = {}
        for row in sorted(self.rows, key=lambda row: row.order):
            gone = self.gone(row)
            stands = row.counts_from <= month and (gone is None or gone > month or (gone == month and not after))
            if stands and row.data["outcome"] == "RESOLVED":
                found.setdefault(self.place(row), row)
        return found

    def behind(self, month: Period) -> dict[int, tuple[set[str], set[str]]]:
        """By section, who is taken back there, and who is charged instead: where no other of the section follows."""
        before, after = self.counted(month, after=False), self.counted(month, after=True)
        found: dict[int, tuple[set[str], set[str]]] = {start: (set(), set()) for start in self.rates}
        for place in before.keys() | after.keys():
            was, now = before.get(place), after.get(place)
            if was is None or now is None or self.section(was) != self.section(now):
                for index, row in enumerate((was, now)):
                    if row is not None:
                        found[self.section(row)][index].add(row.id)
        return found

    def reversing(self, month: Period) -> set[str]:
        """The first revision that does not count after one that did, where a place has nobody any more."""
        found, after = set(), self.counted(month, after=True)
        for place, row in self.counted(month, after=False).items():
            bad = [
                other
                for other in self.later(row)
                if other.entered <= month and (other.data["outcome"] != "RESOLVED" or other.counts_from > month)
            ]
            if place not in after and bad and bad[0].entered == month:
                found.add(bad[0].id)
        return found

    def marks(self, month: Period) -> dict[str, Period | None]:
        """Of those that a month's lines count at first, when nobody of their section is left in their place."""
        found: dict[str, Period | None] = {}
        for place, row in self.counted(month, after=False).items():
            if self.section(row) >= month.start_us:
                left = [
                    later
                    for later in MONTHS
                    if later >= month
                    and not (
                        (now := self.counted(later, after=True).get(place)) and self.section(now) == self.section(row)
                    )
                ]
                found[row.id] = left[0] if left else None
        return found


def told(story: list[Told], window: str | None, second: str | None) -> tuple[Account, SectionsOf, Oracle]:
    """With `second`, November's second half has a plan with a charge of that name, at twice the price."""
    rows = [row_of(t) for t in story]
    plans, versions = {"one": plan_of(window)}, [CustomerVersion(0, {"plan": "one"})]
    rates = dict.fromkeys((month.start_us for month in MONTHS), 1)
    if second is not None:
        plans["two"] = plan_of(window, 2, second)
        versions.append(CustomerVersion(CHANGE_US, {"plan": "two"}, CHANGE_US))
        rates |= dict.fromkeys((CHANGE_US, DECEMBER.start_us, JANUARY.start_us), 2)
    customer = Customer("c", tuple(versions))
    made = sections(customer, lambda name, _: plans[name], Closings())
    return Account(customer, tuple(rows)), made, Oracle(rows, window, rates)


windows = st.sampled_from([None, "SESSION", "CONVERSATION"])
seconds = st.sampled_from([None, "c", "d"])


@settings(max_examples=200, deadline=None)
@given(story=stories(), window=windows, second=seconds)
def test_a_credit_names_what_it_is_made_of(story, window, second) -> None:
    account, sections_of, oracle = told(story, window, second)
    for month in MONTHS:
        expected = {start: (taken, instead) for start, (taken, instead) in oracle.behind(month).items()}
        lines = {line["from"]: line for line in invoice(account, sections_of, month)["credit_lines"]}
        for start, (taken, instead) in expected.items():
            amount = oracle.rates[start] * (len(taken) - len(instead))
            line = lines.pop(timestamp(start), None)
            if line is None:
                assert amount == 0
            else:
                assert (set(line["outcomes"]), set(line["instead"])) == (taken, instead)
                assert Decimal(line["amount"]) == amount != 0
                named = [*line["outcomes"], *line["instead"]]
                assert len(named) == len(taken) + len(instead)
                sessions = [*line["sessions"], *line["instead_sessions"]]
                assert sessions == [f"s{name.split('_')[1]}" for name in named]
                assert not line["more"]
        assert not lines


@settings(max_examples=200, deadline=None)
@given(story=stories(), window=windows, second=seconds)
def test_reversed_are_the_revisions_that_took_a_charge_back(story, window, second) -> None:
    account, sections_of, oracle = told(story, window, second)
    books = Classes(account, sections_of)
    by_parts = [Classes(part, sections_of, Books(part, sections_of)) for part in parts(account, sections_of)]
    for month in MONTHS:
        kinds = list(books.of_period(month))
        entered = [row.id for row in oracle.rows if row.entered == month]
        assert sorted(row.id for row, _ in kinds) == sorted(entered)
        assert {row.id for row, kind in kinds if kind == "reversed"} == oracle.reversing(month)
        assert reversing_of(Books(account, sections_of), month) == oracle.reversing(month), "in one piece"
        assert {row.id: kind for part in by_parts for row, kind in part.of_period(month)} == {
            row.id: kind for row, kind in kinds
        }
        made = summary([(account, sections_of)], month)
        assert made["events"] == sum(made[name] for name in CLASSES) == len(entered)
        assert made["reversed"] == len(oracle.reversing(month))


@settings(max_examples=100, deadline=None)
@given(story=stories(plain=True, ordered=True), window=st.sampled_from(["SESSION", "CONVERSATION"]))
def test_reversals_times_their_price_are_what_credits_come_to(story, window) -> None:
    """Where nobody but revisions takes back, and a session, or a conversation, counts once at most."""
    account, sections_of, _ = told(story, window, None)
    for month in MONTHS:
        assert summary([(account, sections_of)], month)["reversed"] == Decimal(
            invoice(account, sections_of, month)["credits"]
        )


@settings(max_examples=100, deadline=None)
@given(story=stories(plain=True), window=windows, second=seconds)
def test_a_line_marks_whose_place_is_empty(story, window, second) -> None:
    account, sections_of, oracle = told(story, window, second)
    found = marks(account, sections_of)
    for month in MONTHS:
        expected = oracle.marks(month)
        shown = {}
        for section, usages in Books(account, sections_of).counted(State(month, ENTERED)):
            if section.period == month:
                for place in (one for one in found if one[0].start_us == section.start_us):
                    assert place[0].charge in usages
                for name, usage in usages.items():
                    for use in usage.uses:
                        marked = [
                            when
                            for (place, row), when in found.items()
                            if (place.start_us, place.charge, row) == (section.start_us, name, use.row.id)
                        ]
                        shown[use.row.id] = marked[0] if marked else None
        assert shown == expected


# Case by case.


def case(window: str | None, *rows: Told, second: str | None = None) -> tuple[Account, SectionsOf]:
    account, sections_of, _ = told(list(rows), window, second)
    return account, sections_of


def kinds(account: Account, sections_of: SectionsOf, month: Period) -> dict[str, str]:
    return {row.id: kind for row, kind in Classes(account, sections_of).of_period(month)}


def credits_of(account: Account, sections_of: SectionsOf, month: Period) -> list[tuple[str, str, list[str], list[str]]]:
    lines = invoice(account, sections_of, month)["credit_lines"]
    return [(line["from"][:10], line["amount"], line["outcomes"], line["instead"]) for line in lines]


def test_a_resolution_that_takes_the_place_of_another_gives_nothing_back() -> None:
    same_month = case("SESSION", Told(0, 0, 1, good=True), Told(0, 1, 2, good=True))
    assert kinds(*same_month, OCTOBER) == {"out_0_0": "charged", "out_0_1": "revised"}
    assert credits_of(*same_month, OCTOBER) == []
    next_month = case("SESSION", Told(0, 0, 1, good=True), Told(0, 1, 40, good=True))
    assert kinds(*next_month, NOVEMBER) == {"out_0_1": "revised"}
    assert credits_of(*next_month, NOVEMBER) == [
        ("2026-10-01", "1.00", ["out_0_0"], []), ("2026-11-01", "-1.00", [], ["out_0_1"]),
    ]  # fmt: skip


@pytest.mark.parametrize("second", ["c", "d"])
def test_where_the_plan_changes_in_between_each_section_names_its_own(second: str) -> None:
    rows = [Told(0, 0, 32, good=True), Told(0, 1, 50, good=True), Told(2, 0, 51, good=True), Told(2, 1, 52, good=False)]
    found = case("SESSION", *rows, second=second)
    assert kinds(*found, NOVEMBER) == {
        "out_0_0": "charged", "out_0_1": "revised", "out_2_0": "charged", "out_2_1": "reversed",
    }  # fmt: skip
    assert credits_of(*found, NOVEMBER) == [("2026-11-01", "1.00", ["out_0_0"], [])], "of the other, one for the other"
    more = case("SESSION", *rows, Told(3, 0, 53, good=True), Told(3, 1, 54, good=False), second=second)
    assert credits_of(*more, NOVEMBER)[1] == ("2026-11-15", "2.00", ["out_2_0", "out_3_0"], ["out_0_1"])


def test_charges_of_different_plans_stand_for_each_other() -> None:
    again = case(None, Told(0, 0, 33, good=True), Told(0, 1, 48, good=True), second="d")
    assert kinds(*again, NOVEMBER)["out_0_1"] == "revised", "counted beside it, by the other plan's charge"
    rows = Told(1, 0, 33, good=True), Told(2, 0, 48, good=True), Told(1, 1, 50, good=False)
    next_ = case("CONVERSATION", *rows, second="d")
    assert kinds(*next_, NOVEMBER)["out_1_1"] == "revised"
    assert credits_of(*next_, NOVEMBER) == [
        ("2026-11-01", "1.00", ["out_1_0"], []), ("2026-11-15", "-2.00", [], ["out_2_0"]),
    ]  # fmt: skip


def test_the_next_of_a_conversation_moves_up() -> None:
    found = case(
        "CONVERSATION", Told(1, 0, 1, good=True), Told(2, 0, 2, good=True), Told(1, 1, 3, good=False),
        Told(2, 1, 40, good=False),
    )  # fmt: skip
    assert kinds(*found, OCTOBER)["out_1_1"] == "revised"
    assert (credits_of(*found, OCTOBER), kinds(*found, NOVEMBER)) == ([], {"out_2_1": "reversed"})
    assert credits_of(*found, NOVEMBER) == [("2026-10-01", "1.00", ["out_2_0"], [])]
    assert {name: month for (_, name), month in marks(*found).items()} == {"out_1_0": NOVEMBER, "out_2_0": NOVEMBER}


def test_a_resolution_that_finds_its_new_place_taken_takes_its_own_back() -> None:
    """It names another value, which another session had before."""
    source = plan_source("CONVERSATION").replace("{field: outcome, operator: UNIQUE", "{field: kind, operator: UNIQUE")
    plan, rows = RatedPlan(load_plan(source.encode(), "p").plan), []
    for t, kind in ((Told(1, 0, 1, good=True), "a"), (Told(2, 0, 2, good=True), "b"), (Told(1, 1, 3, good=True), "b")):
        row = row_of(t)
        rows.append(replace(row, data={**row.data, "kind": kind}))
    found = Account(Customer("c"), tuple(rows)), always(plan, Customer("c"))
    assert kinds(*found, OCTOBER)["out_1_1"] == "reversed"
    assert credits_of(*found, OCTOBER) == [("2026-10-01", "1.00", ["out_1_0"], [])]


def test_it_is_the_revision_that_does_not_count_whichever_came_first() -> None:
    found = case(
        "SESSION", Told(0, 0, 1, good=True), Told(0, 1, 70, good=True), Told(0, 2, 40, good=False)
    )  # fmt: skip
    assert kinds(*found, NOVEMBER) == {"out_0_2": "reversed"}
    assert kinds(*found, DECEMBER) == {"out_0_1": "revised"}
    chain = case(None, *(Told(0, number, number, good=number < 2) for number in range(3)))
    assert kinds(*chain, OCTOBER) == {"out_0_0": "charged", "out_0_1": "revised", "out_0_2": "reversed"}


@pytest.mark.parametrize(("size", "expected"), [(2, ("3", ["out_0_0"], [])), (8, ("-3", [], ["out_0_1"]))])
def test_of_a_sum_only_what_is_more_or_less_moves(size: int, expected: tuple) -> None:
    source = plan_source("SESSION").replace("aggregation: COUNT", "aggregation: SUM, event_field: size")
    plan, rows = RatedPlan(load_plan(source.encode(), "p").plan), []
    for t, n in ((Told(0, 0, 1, good=True), 5), (Told(0, 1, 2, good=True), size)):
        row = row_of(t)
        rows.append(replace(row, data={**row.data, "size": n}))
    found = Account(Customer("c"), tuple(rows)), always(plan, Customer("c"))
    amount, taken, instead = expected
    assert credits_of(*found, OCTOBER) == [("2026-10-01", f"{amount}.00", taken, instead)]
    assert kinds(*found, OCTOBER)["out_0_1"] == "revised"

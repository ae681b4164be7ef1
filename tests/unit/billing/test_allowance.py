"""Whatever uses come and go, in whatever order, an allowance tells the free ones as sorting all of them does."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.billing.rating import allowance as module
from sidecar.billing.rating.allowance import Allowance, LostTrackError
from sidecar.billing.rating.counts import Change, Counts, FreeUse, Span

SPAN = Span(0, shadow=False)
FREE = {"a": Decimal(3), "b": Decimal("4.5")}
ROWS = st.tuples(
    st.integers(0, 9),  # which row
    st.sets(st.sampled_from(["a", "b"]), min_size=1),  # the charges that it feeds
    st.integers(0, 5),  # when
    st.sampled_from(["0.5", "1", "2"]),  # how much
    st.sampled_from([None, "2026-11-01", "2026-11-02"]),
)


def counted(rows: dict[int, tuple[set[str], int, str, str | None]]) -> Counts:
    found = Counts()
    for row, (charges, at_us, units, day) in rows.items():
        for charge in charges:
            use = FreeUse(at_us, f"out_{row}", 0, Decimal(units), day)
            found.uses.setdefault((SPAN, charge), set()).add(use)
        if day is not None:
            found.depending[SPAN, day] += 1
    return found


def sorted_out(found: Counts) -> Counter[str]:
    free = {}
    for (_, charge), uses in found.uses.items():
        used = Decimal(0)
        for use in sorted(uses, key=lambda use: (use.at_us, use.id)):
            used += use.units
            if used <= FREE[charge] and use.day is not None:
                free[use.id] = use.day
    return Counter(free.values())


@pytest.mark.parametrize("uses_max", [5, 10_000])
@given(steps=st.lists(st.lists(st.tuples(ROWS, st.booleans()), max_size=4), max_size=12))
def test_the_free_ones_are_the_first_by_time(
    uses_max: int, steps: list[list[tuple[tuple[int, set[str], int, str, str | None], bool]]]
) -> None:
    rows: dict[int, tuple[set[str], int, str, str | None]] = {}
    kept = Allowance()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "USES_MAX", uses_max)
        for step in steps:
            before = counted(rows)
            for (row, *facts), there in step:
                rows.pop(row, None)
                if there:
                    rows[row] = (facts[0], facts[1], facts[2], facts[3])
            now = counted(rows)
            try:
                kept.change(Change.between(before, now), SPAN, FREE)
            except LostTrackError:
                assert kept.many is None
                kept = Allowance()
                kept.change(Change.between(Counts(), now), SPAN, FREE)
            kept = Allowance.read(kept.text())
            told = kept.within(FREE)
            if told is None:
                assert uses_max == 5
            else:
                assert +told == sorted_out(now)
            assert uses_max == 5 or all(len(uses) <= 9 for uses in kept.uses.values())


def test_what_comes_after_the_free_units_is_not_kept() -> None:
    kept, rows = Allowance(), {}
    for number in range(40):
        before = counted(rows)
        rows[number] = ({"a"}, number, "1", "2026-11-01")
        kept.change(Change.between(before, counted(rows)), SPAN, FREE)
    assert len(kept.uses["a"]) == 4
    assert kept.within(FREE) == {"2026-11-01": 3}

"""What a statement tells by hours beside what is here: whatever is lost is missing, and nothing else is."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from billing_api import statement
from hypothesis import given
from hypothesis import strategies as st

from sidecar.billing.events import EventError, read_event
from sidecar.billing.ledger.reconcile import by_hour
from sidecar.billing.ledger.stated import Stated
from sidecar.billing.ledger.tallied import HOUR_US

HOUR_10_US = 1_795_341_600_000_000  # 2026-11-22T10
FEW = st.integers(0, 5)
# Of an hour: sessions told, untold, lost of both together, and beside the statement (counted after it).
HOURS = st.dictionaries(st.integers(0, 30).map(lambda n: n * HOUR_US), st.tuples(FEW, FEW, FEW, FEW), min_size=1)


def lost(told: int, untold: int, wanted: int) -> int:
    return min(wanted, told + untold)


@given(hours=HOURS, before=st.tuples(FEW, FEW, FEW))
def test_what_is_lost_is_what_is_missing(
    hours: dict[int, tuple[int, int, int, int]], before: tuple[int, int, int]
) -> None:
    gone = {hour_us: lost(told, untold, wanted) for hour_us, (told, untold, wanted, _) in hours.items()}
    here = {hour_us: told + untold - gone[hour_us] for hour_us, (told, untold, *_) in hours.items()}
    gone_before = lost(*before)
    elder = before[0] + before[1] - gone_before
    told = {hour_us: one[0] for hour_us, one in hours.items()}
    untold = before[1] + sum(one[1] for one in hours.values())
    found = by_hour(told, before[0], untold, here, elder)
    assert found.missing == sum(gone.values()) + gone_before
    assert found.stated == sum(told.values()) + before[0] + untold


@given(hours=HOURS, before=st.tuples(FEW, FEW, FEW))
def test_what_came_beside_the_statement_hides_no_more_than_itself_and_of_what_is_told_only_in_its_hour(
    hours: dict[int, tuple[int, int, int, int]], before: tuple[int, int, int]
) -> None:
    gone = {hour_us: lost(told, 0, wanted) for hour_us, (told, _, wanted, _) in hours.items()}
    here = {hour_us: told - gone[hour_us] + beside for hour_us, (told, _, _, beside) in hours.items()}
    gone_before = lost(before[0], 0, before[2])
    told = {hour_us: one[0] for hour_us, one in hours.items()}
    found = by_hour(told, before[0], 0, here, before[0] - gone_before)
    assert found.missing == gone_before + sum(max(gone[hour_us] - hours[hour_us][3], 0) for hour_us in hours)
    untold = 7
    hidden = by_hour(told, before[0], untold, here, before[0] - gone_before).missing
    assert found.missing + max(untold - sum(one[3] for one in hours.values()), 0) <= hidden <= found.missing + untold


def stated(by_hour: Any, before: int = 0, finalized: int = 5) -> Stated:
    return Stated("t", "g", HOUR_10_US, HOUR_10_US, finalized + 1, 1, {"RESOLVED": finalized}, 0, by_hour, before)


@given(hours=st.dictionaries(st.integers(0, 23), FEW), before=FEW, finalized=st.integers(0, 200))
def test_untold_is_what_the_hours_lack(hours: dict[int, int], before: int, finalized: int) -> None:
    one = stated({f"2026-11-22T{hour:02}": number for hour, number in hours.items()}, before, finalized)
    assert one.untold + sum(hours.values()) + before == finalized
    assert one.hours() == {HOUR_10_US + (hour - 10) * HOUR_US: number for hour, number in hours.items()}


@pytest.mark.parametrize(
    "hour",
    [
        "20261122T1000", "2026-11-22 10", "2026-11-22t10", "2026-W47-7T10", "2026-11-22T1", "2026-11-22T24",
        "2026-13-22T10", "2026-11-22T10:", "0000-11-22T10", "\N{ARABIC-INDIC DIGIT TWO}026-11-22T10", "",
    ],
)  # fmt: skip
def test_hours_have_one_shape(hour: str) -> None:
    assert stated({hour: 5}).hours() is None
    assert stated({hour: 5}).untold == 0, "of another make"
    assert stated({"2026-11-22T10": 5}).hours() == {HOUR_10_US: 5}


@pytest.mark.parametrize("by_hour", [None, [], {"2026-11-22T10": -1}, {"2026-11-22T10": True}, {"2026-11-22T10": 1.5}])
def test_what_is_no_count_tells_no_hours(by_hour: Any) -> None:
    assert (stated(by_hour).hours(), stated(by_hour).untold) == (None, 0)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"opened": -1}, "opened"),
        ({"open": Decimal(-1)}, "open"),
        ({"dropped": 1 << 53}, "dropped"),
        ({"finalized": {"RESOLVED": 1, "REVERSED": -1}}, "finalized.REVERSED"),
        ({"finalized_by_hour": {"2026-11-22T10": -7}}, "finalized_by_hour.2026-11-22T10"),
        ({"finalized_before": -(10**300)}, "finalized_before"),
    ],
)
def test_a_number_that_is_no_count_is_refused_by_name(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(EventError, match=f"^data: {where} is a count: a whole number from 0 to 9007199254740991$"):
        read_event(statement(1, "2026-11-22T10:00:00Z", 2, **changes))

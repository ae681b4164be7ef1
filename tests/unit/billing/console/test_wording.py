"""How numbers are written for people."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.billing.console.wording import MINUS, THIN, percent


@pytest.mark.parametrize(
    ("part", "whole", "digits", "said"),
    [
        (Decimal("99.99"), 100, 0, "99"),
        (9_999, 10_000, 0, "99"),
        (9_999, 10_000, 1, "99.9"),
        (0.99999, 1, 0, "99"),
        (1, 10_000, 0, "1"),
        (1, 10_000, 1, "0.1"),
        (0, 10_000, 0, "0"),
        (10_000, 10_000, 0, "100"),
        (10_049, 10_000, 0, "100"),
        (987, 1_000, 0, "99"),
        (125, 1_000, 0, "12"),
        (-1, 1_000, 0, f"{MINUS}1"),
    ],
)
def test_a_share_is_all_or_nothing_only_when_it_is(part, whole, digits, said):
    assert percent(part, whole, digits) == f"{said}{THIN}%"


def test_of_nothing_there_is_no_share():
    assert percent(None, 1) == percent(1, 0) == percent(1, None) == "–"


@given(st.integers(0, 10**9), st.integers(1, 10**9), st.integers(0, 2))
def test_no_share_of_whole_numbers_is_rounded_to_an_end_of_the_scale(part, whole, digits):
    shown = Decimal(percent(part, whole, digits).removesuffix(f"{THIN}%"))
    assert (shown == 0) == (part == 0)
    assert (shown >= 100) == (part >= whole)
    assert abs(shown - Decimal(part) * 100 / whole) < Decimal(1).scaleb(-digits)

"""Currencies and their minor units."""

from __future__ import annotations

from decimal import Decimal

import pytest

from sidecar.policy.currency import known_currency, minor_unit


@pytest.mark.parametrize(("code", "unit"), [("USD", "0.01"), ("EUR", "0.01"), ("JPY", "1"), ("KWD", "0.001")])
def test_minor_units(code: str, unit: str) -> None:
    assert known_currency(code)
    assert str(minor_unit(code)) == str(Decimal(unit))


@pytest.mark.parametrize("code", ["usd", "USDT", "XXX", "", "US"])
def test_what_is_no_currency(code: str) -> None:
    assert not known_currency(code)

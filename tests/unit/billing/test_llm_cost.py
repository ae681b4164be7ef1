"""What models cost: an estimate by list prices."""

from __future__ import annotations

from decimal import Decimal

import pytest

from sidecar.billing.rating.llm_cost import PriceHistory, llm_cost, shipped_prices


@pytest.mark.parametrize(
    ("models", "tokens", "cost"),
    [
        (["gpt-4o"], {"input": 1_000_000, "output": 0}, "2.50"),
        (["gpt-4o-mini-2024-07-18"], {"input": 1_000_000, "output": 1_000_000}, "0.75"),
        (["gpt-4o-mini", "gpt-4o"], {"input": 0, "output": 1_000_000}, "10.00"),
        (["claude-sonnet-5"], {"input": 6_000_000, "output": 0}, "12.00"),
        (["claude-opus-5-5"], {"input": 1_000_000, "output": 1_000_000}, "24.00"),
        (["claude-sonnet-4-20250514"], {"input": 10, "output": 10}, "0.00018"),
        (["a model of one's own"], {"input": 5, "output": 5}, "0"),
        (["gpt-4o"], {"input": -5, "output": "many"}, "0"),
        ([7, None], {"input": 5}, "0"),
        ([], {}, "0"),
        (None, None, "0"),
    ],
)
def test_cost(models: object, tokens: object, cost: str) -> None:
    assert llm_cost({"models": models, "tokens": tokens}, shipped_prices()) == Decimal(cost)


def test_a_model_that_costs_nothing_is_another_matter_than_one_without_a_price() -> None:
    prices = shipped_prices().over({"ours": (Decimal(0), Decimal(0))})
    assert prices.known("ours-large") == (0, 0)
    assert prices.known("theirs") is None
    assert prices.of("theirs") == (0, 0)


def test_a_version_lies_over_the_shipped_prices_and_holds_from_its_instant_on() -> None:
    one, two = (Decimal(1), Decimal(2)), (Decimal(3), Decimal(4))
    history = PriceHistory([(100, {"gpt-4o": one, "ours": two}), (200, {"gpt-4o-": two})])
    shipped = shipped_prices()
    assert history.at(99).entries == shipped.entries
    assert (history.at(100).of("gpt-4o-2024"), history.at(199).of("ours-large")) == (one, two)
    assert history.at(100).of("gpt-4o-mini") == shipped.of("gpt-4o-mini"), "the longer name is still the shipped one"
    assert (history.at(200).of("gpt-4o"), history.at(200).of("gpt-4o-x")) == (shipped.of("gpt-4o"), two)
    assert history.at(200).of("ours") == (0, 0), "what a version does not name is as it ships"

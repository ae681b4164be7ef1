"""What models cost: an estimate by list prices."""

from __future__ import annotations

from decimal import Decimal

import pytest

from sidecar.billing.rating.llm_cost import llm_cost


@pytest.mark.parametrize(
    ("models", "tokens", "cost"),
    [
        (["gpt-4o"], {"input": 1_000_000, "output": 0}, "2.50"),
        (["gpt-4o-mini-2024-07-18"], {"input": 1_000_000, "output": 1_000_000}, "0.75"),
        (["gpt-4o-mini", "gpt-4o"], {"input": 0, "output": 1_000_000}, "10.00"),
        (["claude-sonnet-4-20250514"], {"input": 10, "output": 10}, "0.00018"),
        (["a model of one's own"], {"input": 5, "output": 5}, "0"),
        (["gpt-4o"], {"input": -5, "output": "many"}, "0"),
        ([7, None], {"input": 5}, "0"),
        ([], {}, "0"),
        (None, None, "0"),
    ],
)
def test_cost(models: object, tokens: object, cost: str) -> None:
    assert llm_cost({"models": models, "tokens": tokens}) == Decimal(cost)

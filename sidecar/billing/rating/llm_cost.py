"""What the models of a session cost, by public list prices, to set beside what the session earned.

An estimate: an event has one sum of tokens for all its models, so with several the dearest is taken; cached tokens
and volume discounts are not known. Prices are in `model_prices.yaml`, and a model that is not there costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any

from sidecar.billing.rating.price import ZERO
from sidecar.policy.conditions import number
from sidecar.policy.tree import read_tree

_PER = Decimal(1_000_000)


def llm_cost(data: Mapping[str, Any]) -> Decimal:
    """USD for the tokens of one event, exact."""
    models = data.get("models")
    tokens = data.get("tokens")
    if not isinstance(models, list) or not isinstance(tokens, Mapping):
        return ZERO
    used = [max(ZERO, number(tokens.get(side)) or ZERO) for side in ("input", "output")]
    costs = [
        sum((count * price / _PER for count, price in zip(used, prices, strict=True)), ZERO)
        for prices in map(_prices_of, models)
    ]
    return max(costs, default=ZERO)


def _prices_of(model: object) -> tuple[Decimal, Decimal]:
    """USD per million (input, output) tokens of the longest known name that the model's name begins with."""
    known = [name for name in _table() if isinstance(model, str) and model.startswith(name)]
    return _table()[max(known, key=len)] if known else (ZERO, ZERO)


@cache
def _table() -> Mapping[str, tuple[Decimal, Decimal]]:
    source = resources.files("sidecar.billing.rating").joinpath("model_prices.yaml").read_bytes()
    entries: dict[str, list[Any]] = read_tree(source).value
    return {name: (Decimal(prices[0]), Decimal(prices[1])) for name, prices in entries.items()}

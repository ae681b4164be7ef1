"""What the models of a session cost, by list prices, to set beside what the session earned.

An estimate: an event has one sum of tokens for all its models, so with several the dearest is taken; cached tokens
and volume discounts are not known. Prices ship in `model_prices.yaml`; what an operator saves lies over them and holds
for sessions that end from then on, so that sums once made stay right. A model without a price costs nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any

from sidecar.billing.rating.price import ZERO
from sidecar.policy.conditions import number
from sidecar.policy.tree import read_tree

_PER = Decimal(1_000_000)
Price = tuple[Decimal, Decimal]  # USD per million tokens: input, output


class ModelPrices:
    """Prices by the beginning of a model's name; the longest that fits is used."""

    def __init__(self, entries: Mapping[str, Price]) -> None:
        self.entries = dict(entries)
        self._by_length = sorted(self.entries, key=len, reverse=True)

    def of(self, model: object) -> Price:
        """USD per million (input, output) tokens; zeros for a model that is not known."""
        return self.known(model) or (ZERO, ZERO)

    def known(self, model: object) -> Price | None:
        """The same; None for a model that is not known."""
        if isinstance(model, str):
            for name in self._by_length:
                if model.startswith(name):
                    return self.entries[name]
        return None

    def over(self, changes: Mapping[str, Price]) -> ModelPrices:
        """These, where `changes` says nothing else."""
        return ModelPrices({**self.entries, **changes})


class PriceHistory:
    """Which prices hold when: the shipped ones until the first version, then each version until the next.

    `versions` are (Unix microseconds, what was saved), oldest first; each lies over the shipped prices by itself.
    """

    def __init__(self, versions: Sequence[tuple[int, Mapping[str, Price]]] = ()) -> None:
        self._starts = [us for us, _ in versions]
        self._prices = [shipped_prices(), *(shipped_prices().over(saved) for _, saved in versions)]

    def at(self, us: int) -> ModelPrices:
        """The prices of an instant."""
        return self._prices[bisect_right(self._starts, us)]


@cache
def shipped_history() -> PriceHistory:
    """The shipped prices, at all times."""
    return PriceHistory()


def llm_cost(data: Mapping[str, Any], prices: ModelPrices) -> Decimal:
    """USD for the tokens of one event, exact."""
    models = data.get("models")
    tokens = data.get("tokens")
    if not isinstance(models, list) or not isinstance(tokens, Mapping):
        return ZERO
    used = [max(ZERO, number(tokens.get(side)) or ZERO) for side in ("input", "output")]
    costs = [
        sum((count * price / _PER for count, price in zip(used, prices.of(model), strict=True)), ZERO)
        for model in models
    ]
    return max(costs, default=ZERO)


@cache
def shipped_prices() -> ModelPrices:
    """The prices of `model_prices.yaml`."""
    source = resources.files("sidecar.billing.rating").joinpath("model_prices.yaml").read_bytes()
    entries: dict[str, list[Any]] = read_tree(source).value
    return ModelPrices({name: (Decimal(prices[0]), Decimal(prices[1])) for name, prices in entries.items()})

"""Prices of models that operators saved: append-only versions, each of which lies over the shipped prices by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.ledger.tables import model_price_versions
from sidecar.billing.rating.llm_cost import Price, PriceHistory

VERSIONS_SHOWN_MAX = 50


class OutdatedPricesError(ValueError):
    """Somebody else saved prices in the meantime; `newest` is theirs."""

    def __init__(self, newest: int) -> None:
        super().__init__(f"version {newest} was saved in the meantime")
        self.newest = newest


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """What one operator saved: prices that differ from the shipped ones, by the beginning of a model's name."""

    version: int
    prices: Mapping[str, Price]
    actor: str
    reason: str
    saved_us: int


@dataclass(frozen=True, slots=True)
class PriceChange:
    """What an operator wants to save; `base` is the version that was looked at, 0 for none, None for whatever."""

    prices: Mapping[str, Price]
    actor: str
    reason: str
    base: int | None = None


async def read_versions(connection: AsyncConnection) -> list[PriceVersion]:
    """All versions, oldest first."""
    query = select(model_price_versions).order_by(model_price_versions.c.version)
    return [
        PriceVersion(row.version, _read(row.prices), row.actor, row.reason, row.saved_us)
        for row in await connection.execute(query)
    ]


async def read_history(connection: AsyncConnection) -> PriceHistory:
    """Which prices hold when."""
    return PriceHistory([(one.saved_us, one.prices) for one in await read_versions(connection)])


async def save(connection: AsyncConnection, change: PriceChange, now_us: int) -> tuple[PriceVersion, bool]:
    """Add a version, unless the newest one says the same; (version, whether it is new). Raises OutdatedPricesError."""
    versions = await read_versions(connection)
    newest = versions[-1] if versions else None
    number = newest.version if newest else 0
    if newest is not None and dict(newest.prices) == dict(change.prices):
        return newest, False
    if change.base is not None and change.base != number:
        raise OutdatedPricesError(number)
    saved_us = max(now_us, newest.saved_us + 1 if newest else now_us)  # versions follow each other, whatever the clock
    version = PriceVersion(number + 1, change.prices, change.actor, change.reason, saved_us)
    values = {
        "version": version.version, "prices": _written(version.prices), "actor": version.actor,
        "reason": version.reason, "saved_us": version.saved_us,
    }  # fmt: skip
    await connection.execute(model_price_versions.insert().values(values))
    return version, True


def _read(text: str) -> dict[str, Price]:
    return {model: (Decimal(prices[0]), Decimal(prices[1])) for model, prices in json.loads(text).items()}


def _written(prices: Mapping[str, Price]) -> str:
    return json.dumps({model: [f"{one:f}" for one in prices[model]] for model in sorted(prices)})

"""`/v1/model-prices`: USD per million tokens by the beginning of a model's name, shipped and saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from sidecar.billing.api.bodies import ModelPricesBody
from sidecar.billing.api.keys import BILLING
from sidecar.billing.api.problems import ProblemError
from sidecar.billing.api.reading import json_body
from sidecar.billing.ledger.model_prices import OutdatedPricesError, PriceChange, PriceVersion
from sidecar.billing.rating.invoice import timestamp
from sidecar.billing.rating.llm_cost import Price, shipped_prices


async def get_model_prices(request: web.Request) -> web.Response:
    """The prices that hold now, and the newest version that was saved over the shipped ones."""
    versions = await request.app[BILLING].model_prices()
    return web.json_response(_shown(versions[-1] if versions else None))


async def put_model_prices(request: web.Request) -> web.Response:
    """Save prices over the shipped ones, in place of those saved before: 201, or 200 when nothing changes.

    They hold for sessions that end from now on. 409 when `base` is not the newest version.
    """
    body = await json_body(request, ModelPricesBody, "the prices")
    prices = {model: (one.input, one.output) for model, one in body.prices.items()}
    try:
        change = PriceChange(prices, body.actor, body.reason, body.base)
        version, new = await request.app[BILLING].save_model_prices(change)
    except OutdatedPricesError as error:
        raise ProblemError(409, f"{error}: look at it, then send yours with base {error.newest}") from None
    return web.json_response(_shown(version), status=201 if new else 200)


def _shown(version: PriceVersion | None) -> dict[str, Any]:
    saved: Mapping[str, Price] = version.prices if version else {}
    return {
        "version": version.version if version else 0,
        "actor": version.actor if version else None,
        "reason": version.reason if version else None,
        "saved_at": timestamp(version.saved_us) if version else None,
        "prices": [
            {
                "model": model,
                "input": f"{price[0]:f}",
                "output": f"{price[1]:f}",
                "source": "saved" if model in saved else "shipped",
            }
            for model, price in sorted(shipped_prices().over(saved).entries.items())
        ],
    }

"""Prices of models' tokens as a table that operators edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import zip_longest
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from sidecar.billing.api.bodies import ModelPricesBody
from sidecar.billing.api.keys import BILLING
from sidecar.billing.console.forms import Given, actor_of, text_of, texts_of
from sidecar.billing.console.shell import render
from sidecar.billing.console.wiring import WIRING
from sidecar.billing.ledger.model_prices import VERSIONS_SHOWN_MAX, OutdatedPricesError, PriceChange, PriceVersion
from sidecar.billing.rating.llm_cost import Price, shipped_prices

_BLANK_ROWS = 3
_UNPRICED_SHOWN_MAX = 20
_NAMES = {"model": "name", "input": "input price", "output": "output price", "actor": "your name", "reason": "reason"}


@dataclass(slots=True)
class Line:
    """A row of the table: texts as they stand in the fields, and the shipped prices beside them."""

    model: str
    input: str
    output: str
    shipped: Price | None
    saved: bool


@dataclass(slots=True)
class Form:
    """The table as it is or as somebody filled it in."""

    lines: Sequence[Line]
    base: int
    actor: str = ""
    reason: str = ""
    errors: list[str] = field(default_factory=list)


async def show(request: web.Request) -> web.StreamResponse:
    """The prices that hold now."""
    versions = await request.app[BILLING].model_prices()
    return await _page(request, versions, _as_saved(versions))


async def save(request: web.Request) -> web.StreamResponse:
    """Save what differs from the shipped prices; nothing that was written is lost when it cannot be."""
    given = await request.post()
    form = Form(_filled(given), _base(given), actor_of(request, given), text_of(given, "reason"))
    change = _change(form)
    if change is not None:
        try:
            await request.app[BILLING].save_model_prices(change)
        except OutdatedPricesError as error:
            form.errors.append(f"Version {error.newest} was saved in the meantime: look at it below, then save again.")
            form.base = error.newest
        else:
            raise web.HTTPSeeOther("/prices?saved=1")
    return await _page(request, await request.app[BILLING].model_prices(), form, 422)


async def _page(
    request: web.Request, versions: Sequence[PriceVersion], form: Form, status: int = 200
) -> web.StreamResponse:
    shown = versions[-VERSIONS_SHOWN_MAX:]
    before: list[Mapping[str, Price]] = [{}, *(one.prices for one in versions)][-len(shown) - 1 :]
    history = [
        {"version": one, "changes": _differences(old, one.prices)} for old, one in zip(before, shown, strict=False)
    ]
    await request.app[WIRING].read()
    prices = shipped_prices().over(versions[-1].prices if versions else {})
    unpriced = request.app[WIRING].unpriced(lambda model, _: prices.known(model) is not None)
    return render(
        request, "prices.html", status, form=form, history=history[::-1], blank=range(_BLANK_ROWS),
        newest=versions[-1] if versions else None, saved="saved" in request.query,
        unpriced=sorted(unpriced.models.items(), key=lambda one: (-one[1], one[0]))[:_UNPRICED_SHOWN_MAX],
        unpriced_sessions=unpriced.sessions,
    )  # fmt: skip


def _as_saved(versions: Sequence[PriceVersion]) -> Form:
    saved: Mapping[str, Price] = versions[-1].prices if versions else {}
    shipped = shipped_prices().entries
    lines = [
        Line(model, f"{price[0]:f}", f"{price[1]:f}", shipped.get(model), model in saved)
        for model, price in sorted(shipped_prices().over(saved).entries.items())
    ]
    return Form(lines, versions[-1].version if versions else 0)


def _filled(given: Given) -> list[Line]:
    """The rows of a form; empty ones are left out, and one of a shipped model without prices is as it ships."""
    shipped, found = shipped_prices().entries, []
    rows = zip_longest(*(texts_of(given, name) for name in ("model", "input", "output")), fillvalue="")
    for model, first, second in rows:
        if model in shipped and not first and not second:
            price = shipped[model]
            found.append(Line(model, f"{price[0]:f}", f"{price[1]:f}", price, saved=False))
        elif first or second:
            found.append(Line(model, first, second, shipped.get(model), saved=True))
    return found


def _base(given: Given) -> int:
    text = text_of(given, "base")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _change(form: Form) -> PriceChange | None:
    """What to save; None when something is wrong, which the form then says."""
    names = [line.model for line in form.lines]
    form.errors += [f"{name} stands twice: keep one row." for name in sorted({n for n in names if names.count(n) > 1})]
    prices = {line.model: {"input": line.input, "output": line.output} for line in form.lines}
    try:
        body = ModelPricesBody.model_validate({"prices": prices, "actor": form.actor, "reason": form.reason})
    except ValidationError as error:
        form.errors += [_sentence(dict(one)) for one in error.errors()]
        return None
    if form.errors:
        return None
    shipped = shipped_prices().entries
    saved = {model: (one.input, one.output) for model, one in body.prices.items()}
    differing = {model: price for model, price in saved.items() if shipped.get(model) != price}
    return PriceChange(differing, body.actor, body.reason, form.base)


def _sentence(error: Mapping[str, Any]) -> str:
    place = [str(part) for part in error["loc"]]
    what = _NAMES.get(place[-1], place[-1])
    message = str(error["msg"]).removeprefix("Value error, ")
    if place[0] == "prices":
        named = place[1] if len(place) > 1 and place[1] else "a row without a name"
        return f"{named}, {what}: {message}." if place[-1] in {"input", "output"} else f"{named}: {message}."
    return f"{what.capitalize()}: {'it is needed' if not error.get('input') else message}."


def _differences(before: Mapping[str, Price], after: Mapping[str, Price]) -> list[Mapping[str, Any]]:
    """Rows that a version changed, with the prices that held before and after."""
    shipped = shipped_prices().entries
    found: list[Mapping[str, Any]] = []
    for model in sorted(before.keys() | after.keys()):
        old, new = (side.get(model, shipped.get(model)) for side in (before, after))
        if old != new:
            found.append({"model": model, "before": _written(old), "after": _written(new)})
    return found


def _written(price: Price | None) -> str:
    return "none" if price is None else f"{_plain(price[0])} / {_plain(price[1])}"


def _plain(amount: Decimal) -> str:
    return f"{amount:f}"

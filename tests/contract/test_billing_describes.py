"""The OpenAPI description is valid, and what the API answers is what it describes; CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
from typing import Any

import httpx
import pytest
from billing_api import DAY_US, Clock, event, get, post, put_plan, reversal, simple_plan
from jsonschema.validators import Draft202012Validator
from openapi_spec_validator import validate

from sidecar.billing.api import tables
from sidecar.billing.api.openapi import document
from sidecar.billing.api.routes import ENDPOINTS
from sidecar.billing.ledger import behind

ANN = {"actor": "ann", "reason": "why not"}
CAPPED = simple_plan(2, ", guardrails: {max_spend_cap: 10}")


def schema_of(method: str, template: str, status: int, kind: str) -> dict[str, Any]:
    described = document()["paths"][template][method.lower()]["responses"][str(status)]["content"][kind]["schema"]
    return {**described, "components": document()["components"]}


def closed(schema: Any) -> Any:
    """The same, but that nothing may be there which is not described."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(value) for name, value in schema.items()}
    if isinstance(made.get("properties"), dict) and "additionalProperties" not in made:
        made["additionalProperties"] = False
    return made


async def check(api: httpx.AsyncClient, method: str, template: str, path: str, status: int = 200, **more: Any) -> None:
    answer = await api.request(method, path, **more)
    assert answer.status_code == status, answer.text
    kind = answer.headers["content-type"].partition(";")[0]
    errors = list(Draft202012Validator(closed(schema_of(method, template, status, kind))).iter_errors(answer.json()))
    assert errors == [], f"{method} {path}: {errors}"


def test_the_description_is_valid_openapi() -> None:
    validate(document())
    described = {(method.upper(), path) for path, found in document()["paths"].items() for method in found}
    assert described == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    names = [found["operationId"] for path in document()["paths"].values() for found in path.values()]
    assert len(set(names)) == len(names)


async def test_every_answer_is_as_described(api: httpx.AsyncClient) -> None:
    assert (await get(api, "/openapi.json")) == document()
    await put_plan(api, "default", CAPPED)
    await api.put("/v1/customers/customer-17", json={"plan": "default", "attributes": {"region": "eu"}})
    await post(api, *(event(n) for n in range(7)), event(8, data={"held": True}), event(9, subject="unattributed"))
    await post(api, reversal(10, of=1, time="2026-12-01T00:00:00Z"), event(11, data={"held": True}))
    counters = {"tenant": "acme", "generation": "g", "opened": 9, "open": 0, "finalized": {"RESOLVED": 9}, "dropped": 0}
    await post(api, {**event(12, subject="acme"), "type": "sidecar.statement.v1", "data": counters})
    await api.upkeep.settle()
    batch = {"content": "[]", "headers": {"Content-Type": "application/cloudevents-batch+json"}}
    month = "period=2026-11"
    asked = {"plan": simple_plan(), "period": "2026-11"}
    as_yaml = {"content": CAPPED, "headers": {"Content-Type": "text/yaml"}}
    customer = "/v1/customers/customer-17"
    for method, template, path, status, more in (
        ("POST", "/v1/outcomes", "/v1/outcomes", 200, batch),
        ("POST", "/v1/outcomes", "/v1/outcomes", 415, {"json": {}}),
        ("GET", "/v1/outcomes", "/v1/outcomes?limit=3", 200, {}),
        ("GET", "/v1/outcomes", "/v1/outcomes?limit=x", 400, {}),
        ("POST", "/v1/outcomes/{id}/release", "/v1/outcomes/out_8/release", 201, {"json": ANN}),
        ("POST", "/v1/outcomes/{id}/release", "/v1/outcomes/out_8/release", 200, {"json": ANN}),
        ("POST", "/v1/outcomes/{id}/drop", "/v1/outcomes/out_11/drop", 201, {"json": ANN}),
        ("POST", "/v1/outcomes/{id}/reverse", "/v1/outcomes/out_2/reverse", 201, {"json": ANN}),
        ("POST", "/v1/outcomes/{id}/reverse", "/v1/outcomes/out_2/reverse", 422, {"json": {}}),
        ("POST", "/v1/outcomes/{id}/reverse", "/v1/outcomes/out_1/reverse", 409, {"json": ANN}),
        ("POST", "/v1/outcomes/{id}/assign", "/v1/outcomes/out_9/assign", 201, {"json": {**ANN, "customer": "c"}}),
        ("GET", "/v1/outcomes/{id}", "/v1/outcomes/out_9", 200, {}),
        ("GET", "/v1/outcomes/{id}", "/v1/outcomes/out_3", 200, {}),
        ("GET", "/v1/outcomes/{id}", "/v1/outcomes/out_none", 404, {}),
        ("GET", "/v1/sessions/{id}", "/v1/sessions/ses_2", 200, {}),
        ("GET", "/v1/sessions/{id}", "/v1/sessions/ses_none", 404, {}),
        ("GET", "/v1/plans", "/v1/plans", 200, {}),
        ("POST", "/v1/plans/backtest", "/v1/plans/backtest", 200, {"json": asked}),
        ("PUT", "/v1/plans/{id}", "/v1/plans/default", 200, as_yaml),
        ("GET", "/v1/plans/{id}", "/v1/plans/default", 200, {}),
        ("GET", "/v1/customers", "/v1/customers?limit=1", 200, {}),
        ("PUT", "/v1/customers/{id}", customer, 200, {"json": {"seats": 3}}),
        ("GET", "/v1/customers/{id}", customer, 200, {}),
        ("GET", "/v1/customers/{id}/history", f"{customer}/history", 200, {}),
        ("GET", "/v1/customers/{id}/invoice", f"{customer}/invoice?{month}", 200, {}),
        ("GET", "/v1/customers/{id}/invoice", f"{customer}/invoice?period=2026-12", 200, {}),
        ("GET", "/v1/customers/{id}/invoice", f"{customer}/invoice?{month}&shadow=true", 200, {}),
        ("GET", "/v1/customers/{id}/sessions", f"{customer}/sessions?{month}&charge=pricing&limit=2", 200, {}),
        ("GET", "/v1/summary", f"/v1/summary?{month}", 200, {}),
        ("GET", "/v1/books", "/v1/books", 200, {}),
        ("GET", "/v1/decisions", "/v1/decisions?limit=1&customer=customer-17", 200, {}),
        ("GET", "/v1/decisions", "/v1/decisions?after=x", 400, {}),
        ("GET", "/v1/alerts", "/v1/alerts?limit=1", 200, {}),
    ):  # fmt: skip
        await check(api, method, template, path, status, **more)


async def test_customers_are_listed_in_pages(api: httpx.AsyncClient) -> None:
    await post(api, *(event(n, subject=f"c{n}") for n in range(4)))
    await api.put("/v1/customers/b", json={})
    await api.upkeep.settle()
    first = await get(api, "/v1/customers", limit="3")
    second = await get(api, "/v1/customers", limit="3", after=first["next"])
    assert (first["customers"], second) == (["b", "c0", "c1"], {"customers": ["c2", "c3"], "next": None})


def rows(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


async def test_the_ledger_as_a_table(api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.billing.api.tables.PAGE_MAX", 10)
    strange = '=HYPERLINK("http://x")'
    await post(api, *(event(n) for n in range(30)), event(30, data={"conversation": strange}))
    await post(api, event(31, subject='comma, "quote"', data={"conversation": "-1"}))
    found = rows(await api.get("/v1/outcomes?format=csv"))
    assert [row["id"] for row in found] == [f"out_{n}" for n in reversed(range(32))]
    assert (found[0]["customer"], found[0]["conversation"]) == ('comma, "quote"', "-1")
    assert found[1]["conversation"] == "'" + strange, "no spreadsheet takes it for a formula"
    for text in ("=5", "@5", "\t5", "\r5", "+5-1", "-", "--1", "-1.", "=-1.5"):
        assert tables._cell(text) == "'" + text
    for text in ("-1", "+12.50", "5", "a=5"):
        assert tables._cell(text) == text, "is no formula"
    assert (found[2]["held"], found[2]["time"], found[2]["late"]) == ("false", "2026-11-22T10:00:00Z", "")
    some = rows(await api.get("/v1/outcomes?customer=customer-17&period=2026-10", headers={"Accept": "text/csv"}))
    assert some == []
    await get(api, "/v1/outcomes", 400, format="xml")


async def test_an_invoice_as_a_table_adds_up(api: httpx.AsyncClient) -> None:
    await put_plan(api, "default", simple_plan(2, ", guardrails: {max_spend_cap: 9, max_spend_behavior: CAP}"))
    await post(api, *(event(n) for n in range(7)), reversal(8, of=1, time="2026-11-24T00:00:00Z"))
    await post(api, reversal(9, of=2, time="2026-11-24T00:00:00Z"), reversal(10, of=3, time="2026-11-24T00:00:00Z"))
    answer = await api.get("/v1/customers/customer-17/invoice?period=2026-11&format=csv")
    found = [(row["kind"], row["outcomes"], row["amount"]) for row in rows(answer)]
    assert found == [
        ("line", "7", "14.00"), ("not charged by the cap", "", "-5.00"), ("added to the minimum", "", "0.00"),
        ("credit", "3", "-1.00"), ("total", "", "8.00"),
    ]  # fmt: skip


async def test_the_cells_of_an_invoice_are_numbers_or_empty(
    api: httpx.AsyncClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what came late nobody says how many it was; nor of what a credit names in part."""
    monkeypatch.setattr(behind, "NAMED_MAX", 1)
    await put_plan(api, "default", simple_plan(1))
    await post(api, *(event(n) for n in range(3)))
    clock.now_us += 12 * DAY_US
    await api.billing.close_due()
    await post(api, event(3), *(reversal(10 + n, of=n, time="2026-12-02T00:00:00Z") for n in range(2)))
    answer = await api.get("/v1/customers/customer-17/invoice?period=2026-12&format=csv")
    found = [list(row.values()) for row in rows(answer) if row["kind"] in {"adjustment", "credit"}]
    start, common = ["customer-17", "2026-11", "2026-11-01T00:00:00Z"], ["", "", "", "", "", "", "", ""]
    assert found == [
        [*start, "adjustment", *common, "1.00", "USD"],
        [*start, "credit", *common, "-2.00", "USD"],
    ]

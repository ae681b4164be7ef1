"""The billing API over real HTTP, on both databases: pages of the ledger, plans, customers, and wrong requests."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import httpx
from billing_api import ONE, Clock, event, get, post, serving
from sqlalchemy.engine import URL

PLANS = Path(__file__).parents[2] / "examples" / "plans"


async def test_pages_of_the_ledger(api: httpx.AsyncClient) -> None:
    await post(api, *(event(n, subject=f"customer-{n % 2}") for n in range(25)))
    seen, after = [], None
    while True:
        page = await get(api, "/v1/outcomes", limit="10", **({"after": after} if after else {}))
        seen += [entry["id"] for entry in page["outcomes"]]
        await post(api, event(100 + len(seen)))  # what arrives meanwhile does not shift the pages
        after = page["next"]
        if after is None:
            break
    assert seen == [f"out_{n}" for n in reversed(range(25))]
    for unknown in ("FOO", "resolved", "RESOLVED\0", ""):
        problem = await get(api, "/v1/outcomes", 400, state=unknown)
        known = "RESOLVED, NOT_BILLABLE, INCONCLUSIVE, REVERSED"
        assert problem["detail"] == f"state must be one of {known}, not {unknown!r}"
    only = await get(api, "/v1/outcomes", customer="customer-1", state="RESOLVED")
    assert {entry["customer"] for entry in only["outcomes"]} == {"customer-1"}
    assert [entry["id"] for entry in (await get(api, "/v1/outcomes", conversation="c-3"))["outcomes"]] == ["out_3"]
    for wrong in ({"limit": "0"}, {"limit": "1001"}, {"after": "x"}, {"limit": "²"}):
        await get(api, "/v1/outcomes", status=400, **wrong)


async def test_the_ledger_shows_numbers_as_they_came(api: httpx.AsyncClient) -> None:
    exact = "0.1000000000000000000000000000000001"
    body = (
        json.dumps(event(1, data={"attributes": {"a": "A", "b": "B"}})).replace('"A"', exact).replace('"B"', "1e999999")
    )
    answer = await api.post("/v1/outcomes", content=body, headers={"Content-Type": ONE})
    assert answer.json()["accepted"] == 1
    for path in ("/v1/outcomes", "/v1/sessions/ses_1"):
        shown = (await api.get(path)).text
        assert exact in shown
        assert "1E+999999" in shown
    assert (await get(api, "/v1/customers/customer-17/invoice", period="2026-11"))["lines"][0]["quantity"] == 1


async def test_plans_have_versions_and_say_every_error(api: httpx.AsyncClient) -> None:
    fin = (PLANS / "fin.yaml").read_bytes()
    yaml = {"Content-Type": "application/yaml"}
    first = await api.put("/v1/plans/gold", content=fin, headers=yaml)
    assert (first.status_code, first.json()["version"]) == (201, 1)
    again = await api.put("/v1/plans/gold", content=fin, headers=yaml)
    assert (again.status_code, again.json()["version"]) == (200, 1)
    as_json = await api.put(
        "/v1/plans/gold", json={"rate_plan": {"name": "g", "pricing": {"model": "FLAT", "rate": 4.5}}}
    )
    assert (as_json.status_code, as_json.json()["version"]) == (201, 2)
    newest = await get(api, "/v1/plans/gold")
    assert (newest["version"], newest["versions"], newest["rate_plan"]["pricing"]["rate"]) == (2, [1, 2], "4.5")
    assert (await get(api, "/v1/plans/gold", version="1"))["source"] == fin.decode()
    broken = await api.put("/v1/plans/gold", content=b"rate_plan:\n  name: x\n  trial_days: -1\n  nam: y", headers=yaml)
    assert broken.status_code == 422
    assert [error["line"] for error in broken.json()["errors"]] == [3, 4]
    assert (await api.put("/v1/plans/gold", json={"rate_plan": {}})).status_code == 422
    deep = b'{"rate_plan":' * 400 + b"1" + b"}" * 400
    refused = await api.put("/v1/plans/gold", content=deep, headers={"Content-Type": "application/json"})
    assert refused.status_code == 422
    assert (await api.put("/v1/plans/gold", content=fin, headers={"Content-Type": "image/png"})).status_code == 415
    assert (await api.put("/v1/plans/no%20blank", content=fin, headers=yaml)).status_code == 422
    await get(api, "/v1/plans/absent", status=404)
    await get(api, "/v1/plans/gold", status=404, version="9")


async def test_customers_and_their_plans_through_time(api: httpx.AsyncClient, clock: Clock) -> None:
    flat = "rate_plan: {{name: p, charges: [{{id: f, metrics: [], model: FLAT, rate: {rate}}}]}}"
    for name, rate in (("a", 1), ("b", 2)):
        await api.put(f"/v1/plans/{name}", content=flat.format(rate=rate), headers={"Content-Type": "text/yaml"})
    await get(api, "/v1/customers/k%2F1", status=404)
    body = {"plan": "a", "started_at": "2026-11-01", "seat_tier": "PRO", "seats": 12, "attributes": {"region": "eu"}}
    put = await api.put("/v1/customers/k%2F1", json=body)
    assert put.json() == {"customer": "k/1", **body}
    assert await get(api, "/v1/customers/k%2F1") == {"customer": "k/1", **body}

    async def total(period: str) -> str:
        return (await get(api, "/v1/customers/k%2F1/invoice", period=period))["total"]

    assert await total("2026-11") == "1.00"
    await api.put("/v1/customers/k%2F1", json={**body, "plan": "b"})
    assert (await total("2026-11"), await total("2026-12")) == ("1.00", "2.00")
    clock.now_us += 40 * 86_400_000_000  # into January: a new version of b rates January, December stays
    await api.put("/v1/plans/b", content=flat.format(rate=3), headers={"Content-Type": "text/yaml"})
    assert [await total(period) for period in ("2026-11", "2026-12", "2027-01")] == ["1.00", "2.00", "3.00"]
    for wrong, status in (({"plan": "absent"}, 422), ({"seats": -1}, 422), ({"seat": 1}, 422), ([], 422)):
        assert (await api.put("/v1/customers/k%2F1", json=wrong)).status_code == status
    assert (
        await api.put("/v1/customers/k", content=b"{", headers={"Content-Type": "application/json"})
    ).status_code == 400
    assert (await api.put("/v1/customers/k", content=b"{}")).status_code == 415
    assert (await api.put("/v1/customers/a%0Ab", json={})).status_code == 422
    assert (await api.put("/v1/customers/unattributed", json={})).status_code == 422


async def test_wrong_requests_are_problems(api: httpx.AsyncClient) -> None:
    await get(api, "/v1/summary", status=400)
    await get(api, "/v1/summary", status=400, period="November")
    await get(api, "/v1/customers/x/invoice", status=400, period="2026-13")
    await get(api, "/v1/nothing", status=404)
    answer = await api.delete("/v1/outcomes")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET,HEAD,POST")
    assert answer.headers["content-type"].startswith("application/problem+json")
    answer = await api.get("/")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


async def test_the_token_is_asked_for(ledger_url: URL) -> None:
    async with serving(ledger_url, token="s3cret") as api:
        for given in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic s3cret"},
            {"Authorization": "Bearer é"},
        ):
            headers = {name: value.encode() for name, value in given.items()}
            answer = await api.get("/v1/summary?period=2026-11", headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        answer = await api.get("/v1/summary?period=2026-11", headers={"Authorization": "Bearer s3cret"})
        assert answer.status_code == 200
        assert (await api.get("/livez")).status_code == 200
        assert (await api.get("/readyz")).status_code == 200


async def test_a_plan_in_json_keeps_every_digit(api: httpx.AsyncClient) -> None:
    rate = "123456789012.123456789012"
    charge = f'{{"id": "f", "metrics": [], "model": "FLAT", "rate": {rate}}}'
    plan = f'{{"rate_plan": {{"name": "x", "currency": "USD", "metrics": [], "charges": [{charge}]}}}}'
    put = await api.put("/v1/plans/exact", content=plan, headers={"Content-Type": "application/json"})
    assert put.is_success, put.text
    assert (await get(api, "/v1/plans/exact"))["rate_plan"]["charges"][0]["rate"] == rate


async def test_whatever_an_id_holds_it_can_be_asked_for(api: httpx.AsyncClient) -> None:
    named = "{a}/b c?d=%7B#é"
    await post(api, event(1, subject=named, data={"session_id": f"ses_{named}"}))
    path = quote(named, safe="")
    assert (await get(api, f"/v1/customers/{path}/invoice", period="2026-11"))["customer"] == named
    assert (await get(api, f"/v1/sessions/ses_{path}"))["session_id"] == f"ses_{named}"

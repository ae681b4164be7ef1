"""Who may use the billing API: roles, and by which names it answers where nobody is asked for a token."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from billing_api import billing_on, get, serving, simple_plan
from console_pages import OPERATOR, VIEWER, console_on
from itsdangerous import BadSignature, URLSafeTimedSerializer
from sqlalchemy.engine import URL

from sidecar.billing.api.server import application
from sidecar.billing.console.login import COOKIE
from sidecar.billing.ledger.database import sqlite_url
from sidecar.billing.tokens import Tokens

YAML = {"Content-Type": "application/yaml"}


@pytest.fixture
def url(tmp_path: Path) -> URL:
    return sqlite_url(tmp_path / "billing.sqlite3")


@pytest.fixture
async def api(url: URL) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(url) as client:
        yield client


@pytest.mark.parametrize("host", ["evil.example:8095", "10.0.0.1", "localhost.evil.example", "[::2]"])
async def test_without_a_token_a_foreign_name_is_refused(api: httpx.AsyncClient, host: str) -> None:
    """A site whose name was made to lead here is a stranger, whatever it asks for."""
    stranger = {"Host": host, "Origin": f"http://{host}"}
    assert (await api.get("/v1/customers", headers=stranger)).status_code == 403
    answer = await api.put("/v1/plans/theirs", content=simple_plan(3), headers={**stranger, **YAML})
    assert (answer.status_code, "SIDECAR_BILLING_TOKEN" in answer.json()["detail"]) == (403, True)
    assert (await api.get("/livez", headers=stranger)).status_code == 200
    await get(api, "/v1/plans/theirs", status=404)


@pytest.mark.parametrize("host", ["localhost:8095", "sidecar.localhost", "[::1]:80", "127.0.0.2"])
async def test_without_a_token_names_of_loopback_are_answered(api: httpx.AsyncClient, host: str) -> None:
    assert (await api.get("/v1/customers", headers={"Host": host})).status_code == 200


async def test_over_a_unix_socket_any_name_is_answered(url: URL, tmp_path: Path) -> None:
    async with billing_on(url) as billing:
        runner = web.AppRunner(application(billing, Tokens()), access_log=None)
        await runner.setup()
        try:
            await web.UnixSite(runner, str(tmp_path / "api")).start()
            transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "api"))
            async with httpx.AsyncClient(transport=transport, base_url="http://billing") as api:
                assert (await api.get("/v1/customers")).status_code == 200
        finally:
            await runner.cleanup()


async def test_a_viewer_tries_plans_and_writes_none(url: URL) -> None:
    async with console_on(url, tokens=True) as console:
        api, headers = console.http, {"Authorization": f"Bearer {VIEWER}", **YAML}
        path = "/v1/plans/backtest"
        tried = await api.post(path, params={"period": "2026-11"}, content=simple_plan(3), headers=headers)
        assert tried.status_code == 200, tried.text
        assert (await api.put(path, content=simple_plan(3), headers=headers)).status_code == 403
        assert [plan.plan_id for plan in await api.billing.plans()] == ["default"]


async def test_what_signs_sessions_is_no_quick_hash_of_the_tokens(url: URL) -> None:
    """Else a viewer, who has a cookie and one of the tokens, would find a weak operator's token by trying."""
    secret = f"{OPERATOR}\0{VIEWER}".encode()
    quick = (hashlib.sha256(before + secret).digest() for before in (b"", b"sidecar console\0"))
    async with console_on(url, tokens=True) as console:
        await console.log_in(VIEWER, "vera")
        cookie = console.http.cookies[COOKIE]
        for key in quick:
            with pytest.raises(BadSignature):
                URLSafeTimedSerializer(key, salt="session").loads(cookie)
        async with console_on(url, tokens=True) as other:
            answer = await other.http.get("/customers", headers={"Cookie": f"{COOKIE}={cookie}"})
            assert answer.status_code == 200, "any replica reads it"

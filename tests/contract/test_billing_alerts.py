"""Alerts about spending: once per period over all replicas, signed, delivered until they are taken."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import httpx
import pytest
from aiohttp import web
from billing_api import DAY_US, Clock, event, get, post, put_plan, serving, simple_plan
from sqlalchemy.engine import URL
from standardwebhooks import Webhook, WebhookVerificationError, webhooks

from sidecar.billing.alerts import Deliveries, alert_secret

CAPPED = simple_plan(1, ", guardrails: {max_spend_cap: 10, max_spend_behavior: BEHAVIOR}")


class Receiver:
    """A webhook endpoint; `statuses` are answered one after the other, then 204."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.got: list[tuple[dict[str, str], bytes]] = []

    async def take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append((headers, await request.read()))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 204)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/hook", self.take)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        finally:
            await runner.cleanup()


def at(seconds: int) -> type[datetime]:
    """The verifier's idea of now."""

    class Then(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.fromtimestamp(seconds, tz)

    return Then


async def deliver(deliveries: Deliveries) -> None:
    while await deliveries.step():
        pass


@pytest.mark.parametrize("behavior", ["ALERT", "CAP"])
async def test_each_line_is_crossed_once_however_many_replicas_look(ledger_url: URL, behavior: str) -> None:
    clock, receiver = Clock(), Receiver()
    async with (
        receiver.listening() as url,
        serving(ledger_url, clock=clock) as one,
        serving(ledger_url, clock=clock) as other,
    ):
        secret = await alert_secret(one.billing.database, None)
        assert await alert_secret(other.billing.database, None) == secret, "the replicas agree on one"
        senders = [Deliveries(api.billing.database, url, secret, clock) for api in (one, other)]
        await put_plan(one, "default", CAPPED.replace("BEHAVIOR", behavior))
        for number in range(12):
            await post((one, other)[number % 2], event(number))
            await one.upkeep.aggregate()
            await other.upkeep.aggregate()
            for sender in senders:
                await deliver(sender)
        percents = [json.loads(body)["data"]["percent"] for _, body in receiver.got]
        assert percents == [50, 80, 100]
        assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 3
        data = json.loads(receiver.got[0][1])["data"]
        assert (data["customer"], data["period"], data["subtotal"], data["max_spend_cap"], data["currency"]) == (
            "customer-17", "2026-11", "5.00", "10.00", "USD",
        )  # fmt: skip
        invoice = await get(one, "/v1/customers/customer-17/invoice", period="2026-11")
        assert invoice["total"] == ("10.00" if behavior == "CAP" else "12.00")
        clock.now_us += 20 * DAY_US
        await post(one, *(event(n, time="2026-12-05T00:00:00Z") for n in range(100, 106)))
        await other.upkeep.settle()
        await deliver(senders[0])
        assert json.loads(receiver.got[-1][1])["data"]["period"] == "2026-12", "once in each period"
        assert len(receiver.got) == 4
        shown = (await get(one, "/v1/alerts"))["alerts"]
        assert [alert["body"]["data"]["percent"] for alert in shown] == [50, 100, 80, 50]
        assert all(alert["delivered_at"] for alert in shown)
        for sender in senders:
            await sender.close()


async def test_an_alert_is_signed_and_sent_until_it_is_taken(ledger_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, receiver = Clock(), Receiver()
    receiver.statuses = [500, 429, 302, 204]
    async with receiver.listening() as url, serving(ledger_url, clock=clock) as api:
        secret = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        sender = Deliveries(api.billing.database, url, secret, clock)
        await put_plan(api, "default", CAPPED.replace("BEHAVIOR", "ALERT"))
        await post(api, *(event(n) for n in range(5)))
        await api.upkeep.settle()
        for attempts in range(1, 5):
            await deliver(sender)
            assert len(receiver.got) == attempts
            await deliver(sender)
            assert len(receiver.got) == attempts, "not again before its time"
            clock.now_us += DAY_US // 4
        await deliver(sender)
        assert len(receiver.got) == 4
        assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
        official = Webhook(secret)
        for headers, body in receiver.got:
            monkeypatch.setattr(webhooks, "datetime", at(int(headers["webhook-timestamp"])))
            official.verify(body, headers)
            with pytest.raises(WebhookVerificationError):
                official.verify(body + b" ", headers)
        [alert] = (await get(api, "/v1/alerts", customer="customer-17"))["alerts"]
        assert (alert["attempts"], alert["error"]) == (4, None)
        assert (await get(api, "/v1/alerts", customer="nobody"))["alerts"] == []
        await sender.close()


async def test_a_receiver_that_is_away_gets_it_later(ledger_url: URL) -> None:
    clock, receiver = Clock(), Receiver()
    with socket.socket() as held:  # nobody listens there
        held.bind(("127.0.0.1", 0))
        async with serving(ledger_url, clock=clock) as api:
            secret = await alert_secret(api.billing.database, None)
            gone = Deliveries(api.billing.database, f"http://127.0.0.1:{held.getsockname()[1]}/", secret, clock)
            await put_plan(api, "default", CAPPED.replace("BEHAVIOR", "ALERT"))
            await post(api, *(event(n) for n in range(9)))
            await api.upkeep.settle()
            await deliver(gone)
            waiting = (await get(api, "/v1/alerts"))["alerts"]
            assert [(alert["attempts"], alert["delivered_at"], bool(alert["error"])) for alert in waiting] == [
                (1, None, True), (1, None, True),
            ]  # fmt: skip
            assert "sidecar_billing_alerts_waiting 2.0" in (await api.get("/metrics")).text
            clock.now_us += DAY_US
            async with receiver.listening() as url:
                back = Deliveries(api.billing.database, url, secret, clock)
                await deliver(back)
                assert len(receiver.got) == 2
                await back.close()
            await gone.close()


async def test_history_that_is_brought_in_is_no_news(ledger_url: URL) -> None:
    async with serving(ledger_url) as api:
        await put_plan(api, "capped", CAPPED.replace("BEHAVIOR", "ALERT"))
        await api.put("/v1/customers/customer-17", json={"plan": "capped"})
        await post(api, *(event(n, time="2025-05-05T00:00:00Z") for n in range(20)))
        await api.upkeep.settle()
        assert (await get(api, "/v1/customers/customer-17/invoice", period="2025-05"))["total"] == "20.00"
        assert (await get(api, "/v1/alerts"))["alerts"] == []


async def percents(api: httpx.AsyncClient, customer: str) -> list[int]:
    alerts = (await get(api, "/v1/alerts", customer=customer))["alerts"]
    return sorted(alert["body"]["data"]["percent"] for alert in alerts)


@pytest.mark.parametrize("metric", ["aggregation: COUNT", "aggregation: UNIQUE, event_field: conversation"])
async def test_what_is_summed_up_after_midnight_is_news_of_the_month_before(ledger_url: URL, metric: str) -> None:
    clock = Clock()
    async with serving(ledger_url, clock=clock) as api:
        await put_plan(api, "default", CAPPED.replace("BEHAVIOR", "ALERT").replace("aggregation: COUNT", metric))
        await api.upkeep.settle()
        clock.now_us = int(datetime.fromisoformat("2026-12-01T00:05:00Z").timestamp() * 1_000_000)
        await post(api, *(event(n, time="2026-11-30T23:59:00Z") for n in range(8)))
        await api.upkeep.settle()
        assert await percents(api, "customer-17") == [50, 80]


async def test_what_is_due_without_any_event_is_news_as_well(ledger_url: URL) -> None:
    clock = Clock()
    flat = simple_plan(1, ", guardrails: {max_spend_cap: 10}").replace("PER_UNIT, rate: 1", "FLAT, rate: RATE")
    async with serving(ledger_url, clock=clock) as api:
        await put_plan(api, "fee", flat.replace("RATE", "5"))
        await api.put("/v1/customers/acme", json={"plan": "fee"})
        await api.upkeep.settle()
        assert await percents(api, "acme") == [50]
        await put_plan(api, "fee", flat.replace("RATE", "8"))
        await api.upkeep.settle()
        assert await percents(api, "acme") == [50, 80]
        clock.now_us += 31 * DAY_US
        await api.upkeep.settle()
        assert await percents(api, "acme") == [50, 50, 80, 80], "the next month's"


async def test_a_look_at_caps_sums_nobody_up_anew(ledger_url: URL) -> None:
    async with serving(ledger_url) as api:
        await put_plan(api, "default", CAPPED.replace("BEHAVIOR", "ALERT"))
        await post(api, *(event(n, subject=f"c-{n}") for n in range(50)))
        await api.upkeep.settle()
        await put_plan(api, "another", simple_plan(2))
        more = True
        while more:
            more = await api.upkeep.aggregate()
            assert api.billing.stale == set()

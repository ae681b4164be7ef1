"""Stripe's meter events, v1 and v2, on loopback, with Stripe's rules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from export_fake import DAY_US, SECRET, Fake, micros


class StripeV1(Fake):
    """Its answers are saved under the key of the request once it has begun to work, and given to all who repeat it."""

    prefix = "/v1/billing"
    memory_us = DAY_US
    key_memory_us = DAY_US
    duplicate_code: str | None = None  # as it was seen: the words alone tell it
    # What it says of an event that is cancelled already is not documented.
    cancelled_already = "This meter event has already been cancelled."

    def __init__(self, clock: Callable[[], int]) -> None:
        super().__init__(clock)
        self.known: dict[str, tuple[int, str, str, Decimal]] = {}
        self.cancelled: set[str] = set()
        self.cancelled_by: set[str] = set()
        self.saved: dict[str, tuple[int, tuple[str, bytes], int, str]] = {}
        self.busy: set[tuple[str, str]] = set()
        self.met = 0  # requests for a customer and a meter of which another was at work

    async def handle(self, request: web.Request, raw: bytes) -> web.Response:
        form = self.read({name.lower(): value for name, value in request.headers.items()}, raw)
        place = form.get("customer", ""), form["event_name"]
        if place[0] and place in self.busy:
            self.met += 1
            return web.json_response({"error": {"code": "lock_timeout"}}, status=429)
        self.busy.add(place)
        try:
            for _ in range(3):  # others may come
                await asyncio.sleep(0)
            return await super().handle(request, raw)
        finally:
            self.busy.discard(place)

    def work(self, path: str, headers: dict[str, str], raw: bytes, fault: str | None) -> web.Response:
        key = headers["idempotency-key"]
        assert len(key) <= 255
        if key in self.saved and self.clock() - self.saved[key][0] < self.key_memory_us:
            _, then, status, text = self.saved[key]
            if then != (path, raw):
                return web.json_response({"error": {"type": "idempotency_error"}}, status=400)
            return web.Response(status=status, text=text, headers={"idempotent-replayed": "true"})
        answer = super().work(path, headers, raw, fault)
        if self.saves(answer.status):
            self.saved[key] = self.clock(), (path, raw), answer.status, answer.text or ""
        return answer

    def saves(self, status: int) -> bool:
        return True

    def read(self, headers: dict[str, str], raw: bytes) -> dict[str, str]:
        assert headers["content-type"] == "application/x-www-form-urlencoded"
        form = dict(parse_qsl(raw.decode(), strict_parsing=True))
        renamed = {"payload[value]": "value", "payload[stripe_customer_id]": "customer", "cancel[identifier]": "cancel"}
        found = {renamed.get(name, name): value for name, value in form.items()}
        if "timestamp" in found:
            found["at_us"] = int(found["timestamp"]) * 1_000_000
        return found

    def answer(self, path: str, headers: dict[str, str], raw: bytes) -> web.Response:
        assert headers["authorization"] == f"Bearer {SECRET}"
        form = self.read(headers, raw)
        if path == f"{self.prefix}/meter_event_adjustments":
            status, body = self.cancel(form)
            if status == 200:
                self.cancelled_by.add(headers["idempotency-key"].partition(".")[0])
        else:
            assert path == f"{self.prefix}/meter_events"
            status, body = self.event(form)
        return web.json_response(
            body, status=status, headers={"stripe-should-retry": "false"} if status == 400 else None
        )

    def event(self, form: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        assert set(form) == {"event_name", "identifier", "value", "customer", "timestamp", "at_us"}
        if form["customer"] in self.broken:
            return 400, {"error": {"type": "invalid_request_error", "message": "no such customer"}}
        if not self.clock() - 35 * DAY_US <= form["at_us"] <= self.clock() + 300_000_000:
            return 400, {"error": {"type": "invalid_request_error", "code": "timestamp_too_far", "message": "time"}}
        if not self.store(form["identifier"], form["customer"], form["event_name"], form["value"], form):
            message = f"An event already exists with identifier {form['identifier']}."
            named = {"code": self.duplicate_code} if self.duplicate_code else {}
            return 400, {"error": {"type": "invalid_request_error", "message": message, **named}}
        entry = self.clock(), form["customer"], form["event_name"], Decimal(form["value"])
        self.known[form["identifier"]] = entry
        return 200, {"object": "billing.meter_event", "identifier": form["identifier"]}

    def cancel(self, form: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        assert (set(form), form["type"]) == ({"event_name", "type", "cancel"}, "cancel")
        if form["cancel"] in self.cancelled:
            return 400, {"error": {"type": "invalid_request_error", "message": self.cancelled_already}}
        entry = self.known.get(form["cancel"])
        if entry is None or self.clock() - entry[0] >= DAY_US:
            return 400, {"error": {"type": "invalid_request_error", "message": "outside the window"}}
        _, customer, code, value = self.known.pop(form["cancel"])
        assert code == form["event_name"]
        self.amounts[customer, code] -= value
        self.cancelled.add(form["cancel"])
        return 200, {"object": "billing.meter_event_adjustment", "status": "pending"}


class StripeV2(StripeV1):
    """It saves what succeeded; what failed is done again, under the same key."""

    prefix = "/v2/billing"
    key_memory_us = 30 * DAY_US
    duplicate_code = "duplicate_meter_event"

    def saves(self, status: int) -> bool:
        return status < 400

    def work(self, path: str, headers: dict[str, str], raw: bytes, fault: str | None) -> web.Response:
        if fault == "stored_500":  # it knows that it was done
            super().work(path, headers, raw, None)
            return web.Response(status=500)
        return super().work(path, headers, raw, fault)

    def read(self, headers: dict[str, str], raw: bytes) -> dict[str, str]:
        assert headers["content-type"] == "application/json"
        assert headers["stripe-version"]
        found = json.loads(raw)
        if "payload" in found:
            payload = found.pop("payload")
            assert all(isinstance(value, str) for value in payload.values())
            found |= {"value": payload["value"], "customer": payload["stripe_customer_id"]}
            found["at_us"] = micros(found["timestamp"])
        if "cancel" in found:
            found["cancel"] = found["cancel"]["identifier"]
        return found

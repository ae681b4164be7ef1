"""Other billing systems as servers on loopback, each with its vendor's rules: what a repetition is answered, what a
batch does when one event is wrong, how long ids are remembered, which times are taken; and faults on demand.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from standardwebhooks import Webhook, webhooks

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
# dropped: the connection, before anything is stored. lost: after it was stored. stored_500: stored, then answered 500.
FAULTS = ("429", "409", "500", "dropped", "lost", "stored_500")


class Fake:
    """A target: `amounts` is what it would bill, by customer and meter; `faults` are used up one a request."""

    path = "/"
    memory_us: int | None = None
    accepted = 200

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self.faults: list[str | None] = []
        self.fault: Callable[[], str | None] = lambda: self.faults.pop(0) if self.faults else None
        self.seen: dict[str, int] = {}
        self.bodies: dict[str, set[str]] = defaultdict(set)
        self.amounts: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.broken: set[str] = set()  # customers that the target does not know
        self.open = asyncio.Event()  # while it is not set, requests are heard and not answered
        self.open.set()
        self.under_way = 0
        self.most_at_once = 0
        self.url = ""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        app = web.Application(client_max_size=4 << 20)
        app.router.add_route("*", "/{tail:.*}", self.take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self.url
        finally:
            await runner.cleanup()

    async def take(self, request: web.Request) -> web.Response:
        raw = await request.read()
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            await self.open.wait()
            return await self.handle(request, raw)
        finally:
            self.under_way -= 1

    async def handle(self, request: web.Request, raw: bytes) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.path, headers, raw))
        fault = self.fault()
        if fault in {"429", "409"}:
            return web.Response(status=int(fault), headers={"Retry-After": "7"} if fault == "429" else None)
        if fault == "dropped":
            request.transport.abort()
            return web.Response()
        answer = self.work(request.path, headers, raw, fault)
        if fault == "lost":
            request.transport.abort()
        return answer

    def work(self, path: str, headers: dict[str, str], raw: bytes, fault: str | None) -> web.Response:
        """What comes of a request that is looked at; a server fails before or after it has done it."""
        answer = web.Response(status=500) if fault == "500" else self.answer(path, headers, raw)
        return web.Response(status=500) if fault == "stored_500" else answer

    def answer(self, path: str, headers: dict[str, str], raw: bytes) -> web.Response:
        assert path == self.path, f"no such path: {path}"
        assert headers["authorization"] == f"Bearer {SECRET}"
        assert headers["content-type"] == "application/json"
        return self.events(json.loads(raw, parse_float=Decimal))

    def events(self, content: Any) -> web.Response:
        raise AssertionError("every vendor has its own")

    def knows(self, identifier: str) -> bool:
        assert 0 < len(identifier) <= 100
        at = self.seen.get(identifier)
        return at is not None and (self.memory_us is None or self.clock() - at < self.memory_us)

    def store(self, identifier: str, customer: str, code: str, value: Any, body: Any) -> bool:
        """Whether it was new. A forgotten id counts again: that is the danger."""
        self.bodies[identifier].add(json.dumps(body, sort_keys=True, default=str))
        if self.knows(identifier):
            return False
        self.seen[identifier] = self.clock()
        self.amounts[customer, code] += Decimal(value)
        return True

    def total(self, code: str) -> Decimal:
        return sum((amount for (_, name), amount in self.amounts.items() if name == code), Decimal(0))


def micros(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1_000_000)


class OpenMeter(Fake):
    path = "/api/v1/events"
    memory_us = DAY_US

    def answer(self, path: str, headers: dict[str, str], raw: bytes) -> web.Response:
        assert (path, headers["authorization"]) == (self.path, f"Bearer {SECRET}")
        content = json.loads(raw)
        batch = headers["content-type"] == "application/cloudevents-batch+json"
        if not batch and headers["content-type"] != "application/cloudevents+json":
            return web.Response(status=400)  # a charset is enough
        if batch != isinstance(content, list):
            return web.Response(status=400)
        for one in content if batch else [content]:
            assert one["specversion"] == "1.0"
            micros(one["time"])
            if one["subject"] in self.broken:
                return web.Response(status=400, text="not a subject")
        for one in content if batch else [content]:
            self.store(f"{one['source']}/{one['id']}", one["subject"], one["type"], one["data"]["quantity"], one)
        return web.Response(status=204)


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


class Lago(Fake):
    def answer(self, path: str, headers: dict[str, str], raw: bytes) -> web.Response:
        assert headers["authorization"] == f"Bearer {SECRET}"
        content = json.loads(raw)
        batch = path == "/api/v1/events/batch"
        events = content["events"] if batch else [content["event"]]
        assert batch or path == "/api/v1/events"
        assert len(events) <= 100
        faults: dict[str, Any] = {}
        for index, one in enumerate(events):
            assert set(one) == {"transaction_id", "external_subscription_id", "code", "timestamp", "properties"}
            assert isinstance(one["timestamp"], int)
            if one["external_subscription_id"] in self.broken:
                faults[str(index)] = {"external_subscription_id": ["subscription_not_found"]}
            elif self.knows(one["transaction_id"]):
                faults[str(index)] = {"transaction_id": ["value_already_exist"]}
        if faults:  # one is enough: nothing of the batch is kept
            details = faults if batch else faults["0"]
            body = {
                "status": 422,
                "error": "Unprocessable Entity",
                "code": "validation_errors",
                "error_details": details,
            }
            return web.json_response(body, status=422)
        for one in events:
            subject, amount = one["external_subscription_id"], one["properties"]["quantity"]
            assert self.store(one["transaction_id"], subject, one["code"], amount, one)
        return web.json_response({"events": events} if batch else {"event": events[0]})


class Orb(Fake):
    path = "/ingest"

    def events(self, content: Any) -> web.Response:
        failed = []
        assert len(content["events"]) <= 500
        for one in content["events"]:
            assert set(one) == {"event_name", "idempotency_key", "external_customer_id", "timestamp", "properties"}
            if one["external_customer_id"] in self.broken or micros(one["timestamp"]) > self.clock() + 300_000_000:
                failed.append({"idempotency_key": one["idempotency_key"], "validation_errors": ["not valid"]})
                continue
            amount = one["properties"]["quantity"]
            assert isinstance(amount, int | float | Decimal)
            self.store(one["idempotency_key"], one["external_customer_id"], one["event_name"], amount, one)
        return web.json_response({"validation_failed": failed})


class OrbStrict(Orb):
    """As its client library describes it: a 4xx when any event fails."""

    def events(self, content: Any) -> web.Response:
        bad = [one for one in content["events"] if one["external_customer_id"] in self.broken]
        if bad:
            failed = [{"idempotency_key": one["idempotency_key"], "validation_errors": ["not valid"]} for one in bad]
            return web.json_response({"validation_failed": failed, "status": 400}, status=400)
        return super().events(content)


class Metronome(Fake):
    path = "/v1/ingest"
    memory_us = 34 * DAY_US

    def events(self, content: Any) -> web.Response:
        assert isinstance(content, list)
        assert len(content) <= 100
        for one in content:
            assert set(one) == {"transaction_id", "customer_id", "event_type", "timestamp", "properties"}
            if one["customer_id"] in self.broken or micros(one["timestamp"]) < self.clock() - 34 * DAY_US:
                return web.json_response({"message": "invalid"}, status=400)  # whole, and without saying which
        for one in content:
            amount = one["properties"]["quantity"]
            self.store(one["transaction_id"], one["customer_id"], one["event_type"], amount, one)
        return web.Response(status=200)


class Flexprice(Fake):
    def answer(self, path: str, headers: dict[str, str], raw: bytes) -> web.Response:
        assert headers["x-api-key"] == SECRET
        assert "authorization" not in headers
        content = json.loads(raw)
        events = content["events"] if path == "/v1/events/bulk" else [content]
        assert path in {"/v1/events", "/v1/events/bulk"}
        assert 0 < len(events) <= 1000
        for one in events:
            assert set(one) == {"event_id", "event_name", "external_customer_id", "timestamp", "properties"}
            if one["external_customer_id"] in self.broken:  # those before it are kept
                return web.json_response({"error": "invalid"}, status=400)
            key = f"{one['event_id']}@{one['timestamp']}"  # another time is another event
            self.store(key, one["external_customer_id"], one["event_name"], one["properties"]["quantity"], one)
        return web.json_response({"message": "accepted"}, status=202)


class Polar(Fake):
    path = "/v1/events/ingest"
    behind_us = 0  # its clock

    def events(self, content: Any) -> web.Response:
        detail = []
        for index, one in enumerate(content["events"]):
            assert set(one) == {"name", "external_customer_id", "external_id", "timestamp", "metadata"}
            place = ["body", "events", index]
            if one["external_customer_id"] in self.broken:
                detail.append({"loc": [*place, "external_customer_id"], "msg": "no such customer"})
            elif micros(one["timestamp"]) > self.clock() - self.behind_us:
                detail.append({"loc": [*place, "timestamp"], "msg": "Value error, Timestamp must be in the past."})
        if detail:
            return web.json_response({"error": "RequestValidationError", "detail": detail}, status=422)
        inserted = 0
        for one in content["events"]:
            amount = one["metadata"]["quantity"]
            inserted += self.store(one["external_id"], one["external_customer_id"], one["name"], amount, one)
        return web.json_response({"inserted": inserted, "duplicates": len(content["events"]) - inserted})


class Hook(Fake):
    memory_us = 3 * DAY_US

    def answer(self, path: str, headers: dict[str, str], raw: bytes) -> web.Response:
        class Then(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return datetime.fromtimestamp(self.clock() / 1_000_000, tz)

        before, webhooks.datetime = webhooks.datetime, Then
        try:
            content = Webhook(SECRET).verify(raw, headers)
        finally:
            webhooks.datetime = before
        data = content["data"]
        assert content["type"] == ("usage.recorded" if data["quantity"] > 0 else "usage.corrected")
        assert headers["webhook-id"] == data["id"]
        if data["customer"] in self.broken:
            return web.Response(status=422, text="no such customer")
        self.store(data["id"], data["customer"], data["meter"], data["quantity"], content)
        return web.Response(status=204)


FAKES: dict[str, type[Fake]] = {
    "openmeter": OpenMeter, "stripe_v1": StripeV1, "stripe_v2": StripeV2, "lago": Lago, "orb": Orb,
    "metronome": Metronome, "flexprice": Flexprice, "polar": Polar, "webhook": Hook,
}  # fmt: skip

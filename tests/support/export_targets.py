"""Other billing systems as servers on loopback, each with its vendor's rules: what a repetition is answered, what a
batch does when one event is wrong, how long ids are remembered, which times are taken; and faults on demand.
"""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

from aiohttp import web
from export_fake import DAY_US, SECRET, Fake, micros
from export_stripe import StripeV1, StripeV2
from standardwebhooks import Webhook, webhooks


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

"""Stripe meter events, v1 (forms) and v2 (JSON), one a request (https://docs.stripe.com/api/billing/meter-event).

A repetition of an identifier is a 400 with `duplicate_meter_event`; 409 is concurrency. Identifiers are remembered for
at least 24 hours, times may lie 35 days back and 5 minutes ahead, an event can be cancelled for 24 hours after Stripe
received it. `stripe-should-retry` says so where a status alone does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from sidecar.billing.events import canonical_json
from sidecar.billing.exports.target import (
    DAY_US,
    DUPLICATE,
    MINUTE_US,
    Answer,
    Endpoint,
    Item,
    Request,
    Sent,
    Target,
    Traits,
    Verdict,
    bearer,
    excerpt,
    judged,
)
from sidecar.billing.rating.invoice import timestamp

V2_VERSION = "2025-09-30.clover"
_TRAITS = Traits(memory_us=DAY_US, past_us=35 * DAY_US, future_us=5 * MINUTE_US, cancel_us=DAY_US)
_DUPLICATE = "duplicate_meter_event"


def write_v1(item: Item) -> str:
    """A form."""
    if item.act == "cancel":
        return urlencode({"event_name": item.code, "type": "cancel", "cancel[identifier]": item.cancels or ""})
    form = {
        "event_name": item.code,
        "identifier": item.id,
        f"payload[{item.field}]": f"{item.quantity:f}",
        "payload[stripe_customer_id]": item.customer,
        "timestamp": str(item.at_us // 1_000_000),
    }
    return urlencode(form)


def write_v2(item: Item) -> str:
    """A JSON object; values are texts there."""
    if item.act == "cancel":
        return canonical_json({"event_name": item.code, "type": "cancel", "cancel": {"identifier": item.cancels}})
    return canonical_json(
        {
            "event_name": item.code,
            "identifier": item.id,
            "payload": {item.field: f"{item.quantity:f}", "stripe_customer_id": item.customer},
            "timestamp": timestamp(item.at_us),
        }
    )


def request_v1(endpoint: Endpoint, sent: Sequence[Sent], _: int) -> Request:
    """One form; the idempotency key makes the repetition of an adjustment harmless too."""
    headers = bearer(endpoint) | {"content-type": "application/x-www-form-urlencoded", "idempotency-key": sent[0].id}
    return Request(f"/v1/billing/{_resource(sent[0])}", headers, sent[0].body.encode())


def request_v2(endpoint: Endpoint, sent: Sequence[Sent], _: int) -> Request:
    """One JSON object."""
    headers = bearer(endpoint) | {"stripe-version": V2_VERSION, "idempotency-key": sent[0].id}
    return Request(f"/v2/billing/{_resource(sent[0])}", headers, sent[0].body.encode())


def _resource(sent: Sent) -> str:
    return "meter_event_adjustments" if sent.act == "cancel" else "meter_events"


def judge(answer: Answer, sent: Sequence[Sent]) -> list[Verdict]:
    """One verdict."""
    if answer.status == 400 and _is_duplicate(answer):
        return [DUPLICATE]
    should = answer.headers.get("stripe-should-retry")
    if answer.status >= 400 and should == "true":
        return [Verdict("retry", f"answered {answer.status}", unstored=answer.status == 429)]
    if 400 <= answer.status < 500 and should == "false" and answer.status not in {401, 403, 404, 429}:
        return [Verdict("refused", f"answered {answer.status}: {excerpt(answer)}", unstored=True)]
    return judged(answer, sent)


def _is_duplicate(answer: Answer) -> bool:
    error = answer.json.get("error") if isinstance(answer.json, dict) else None
    return isinstance(error, dict) and _DUPLICATE in {error.get("code"), error.get("type")}


_DUPLICATES = "400 `duplicate_meter_event`"
_NEGATIVE = "a cancellation for 24 hours after the event was sent, then an event with a negative value"

STRIPE_V1 = Target(
    "stripe_v1", "Stripe meter events v1", "https://api.stripe.com",
    ("/v1/billing/meter_events", "/v1/billing/meter_event_adjustments"), "value", _TRAITS, write_v1, request_v1, judge,
    _DUPLICATES, _NEGATIVE,
)  # fmt: skip
STRIPE_V2 = Target(
    "stripe_v2", "Stripe meter events v2", "https://api.stripe.com",
    ("/v2/billing/meter_events", "/v2/billing/meter_event_adjustments"), "value", _TRAITS, write_v2, request_v2, judge,
    _DUPLICATES, _NEGATIVE,
)  # fmt: skip

"""Stripe meter events, v1 (forms) and v2 (JSON), one a request (https://docs.stripe.com/api/billing/meter-event).

Identifiers are remembered for at least 24 hours, times may lie 35 days back and 5 minutes ahead, an event can be
cancelled for 24 hours after Stripe received it. `stripe-should-retry` says so where a status alone does not; 409 is
concurrency. Stripe takes 1000 events a second in live mode, 25 in a sandbox, and of one customer's for a meter one at a
time (https://docs.stripe.com/rate-limits).

A repetition of an identifier is a 400: v2 calls it `duplicate_meter_event`, v1 says so in words alone.

Keys of requests (https://docs.stripe.com/api/idempotent_requests): v1 saves its answer under the key once it has begun
to work, a 500 too, and answers every repetition with it. So the key stays while no answer was heard, which makes the
repetition of a cancellation harmless, and changes after one that was saved. v2 does the work again where it failed,
under the same key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
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
_TRAITS = Traits(
    concurrency_max=8, customer_alone=True,
    memory_us=DAY_US, past_us=35 * DAY_US, future_us=5 * MINUTE_US, cancel_us=DAY_US,
)  # fmt: skip
_DUPLICATE = "duplicate_meter_event"
_CANCELLED = re.compile(r"\balready (been )?cancell?ed\b")
_BEFORE_WORK = {401, 403, 409, 429}  # the key, the rate and others at work are looked at before the request is


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
    """One form."""
    headers = bearer(endpoint) | {"content-type": "application/x-www-form-urlencoded", "idempotency-key": sent[0].key}
    return Request(f"/v1/billing/{_resource(sent[0])}", headers, sent[0].body.encode())


def request_v2(endpoint: Endpoint, sent: Sequence[Sent], _: int) -> Request:
    """One JSON object."""
    headers = bearer(endpoint) | {"stripe-version": V2_VERSION, "idempotency-key": sent[0].key}
    return Request(f"/v2/billing/{_resource(sent[0])}", headers, sent[0].body.encode())


def _resource(sent: Sent) -> str:
    return "meter_event_adjustments" if sent.act == "cancel" else "meter_events"


def judge_v1(answer: Answer, sent: Sequence[Sent]) -> list[Verdict]:
    """One verdict; whatever Stripe says after it has begun to work, it says to this key for ever."""
    saved = answer.status >= 400 and answer.status not in _BEFORE_WORK
    return [replace(verdict, key_spent=saved) for verdict in judge_v2(answer, sent)]


def judge_v2(answer: Answer, sent: Sequence[Sent]) -> list[Verdict]:
    """One verdict."""
    if answer.status == 400 and _has_it(answer, sent[0]):
        return [DUPLICATE]
    should = answer.headers.get("stripe-should-retry")
    if answer.status >= 400 and should == "true":
        return [Verdict("retry", f"answered {answer.status}", unstored=answer.status == 429)]
    if 400 <= answer.status < 500 and should == "false" and answer.status not in {401, 403, 404, 429}:
        return [Verdict("refused", f"answered {answer.status}: {excerpt(answer)}", unstored=True)]
    return judged(answer, sent)


def _has_it(answer: Answer, sent: Sent) -> bool:
    """Whether an error says that there is nothing left to do.

    What it says of an event that is cancelled already is not documented: other words than these are a refusal, which
    parks a cancellation that may have been done for people to look at.
    """
    error = answer.json.get("error") if isinstance(answer.json, dict) else None
    if not isinstance(error, dict):
        return False
    message = str(error.get("message"))
    if sent.act == "cancel":
        return _CANCELLED.search(message) is not None
    named = _DUPLICATE in {error.get("code"), error.get("type")}
    return named or f"already exists with identifier {sent.id}" in message


_NEGATIVE = "a cancellation for 24 hours after the event was sent, then an event with a negative value"

STRIPE_V1 = Target(
    "stripe_v1", "Stripe meter events v1", "https://api.stripe.com",
    ("/v1/billing/meter_events", "/v1/billing/meter_event_adjustments"), "value", _TRAITS, write_v1, request_v1,
    judge_v1, "400 in words, or as before under the same key", _NEGATIVE,
)  # fmt: skip
STRIPE_V2 = Target(
    "stripe_v2", "Stripe meter events v2", "https://api.stripe.com",
    ("/v2/billing/meter_events", "/v2/billing/meter_event_adjustments"), "value", _TRAITS, write_v2, request_v2,
    judge_v2, "400 `duplicate_meter_event`, or as before under the same key", _NEGATIVE,
)  # fmt: skip

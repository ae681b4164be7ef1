"""Anything else: one signed POST per entry, as Standard Webhooks 1.0 defines it (https://www.standardwebhooks.com).

`webhook-id` is the entry's id, the same at every attempt; receivers that keep ids for the target's `memory_hours` hear
of nothing twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.billing.events import canonical_json
from sidecar.billing.exports.target import DAY_US, Endpoint, Item, Request, Sent, Target, Traits, judged
from sidecar.billing.rating.invoice import timestamp
from sidecar.billing.signing import signature

TYPES = {"usage": "usage.recorded", "credit": "usage.corrected"}


def write(item: Item) -> str:
    """The payload."""
    data = {
        "id": item.id,
        "meter": item.code,
        "customer": item.customer,
        item.field: item.quantity,
        "outcome": item.outcome_id,
    }
    return canonical_json({"type": TYPES[item.act], "timestamp": timestamp(item.at_us), "data": data})


def request(endpoint: Endpoint, sent: Sequence[Sent], now_us: int) -> Request:
    """Signed over id, time of the attempt, and body."""
    body, when = sent[0].body.encode(), now_us // 1_000_000
    headers = {
        "content-type": "application/json",
        "webhook-id": sent[0].id,
        "webhook-timestamp": str(when),
        "webhook-signature": signature(endpoint.secret, sent[0].id, when, body),
    }
    return Request("", headers, body)


WEBHOOK = Target(
    kind="webhook",
    title="Signed webhook",
    url=None,
    paths=(),
    field="quantity",
    traits=Traits(concurrency_max=8, memory_us=3 * DAY_US),
    write=write,
    request=request,
    judge=judged,
    duplicates="the receiver's, by `webhook-id`",
    negative="`usage.corrected` with a negative quantity",
)

"""Flexprice: `POST /v1/events` and `/v1/events/bulk` (https://docs.flexprice.io/api-reference/events).

Answers 202 to repetitions too, and tells events apart by id and time together: the frozen bytes keep both.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.billing.events import canonical_json
from sidecar.billing.exports.target import Endpoint, Item, Request, Sent, Target, Traits, joined, judged
from sidecar.billing.rating.invoice import timestamp


def write(item: Item) -> str:
    """One event."""
    return canonical_json(
        {
            "event_id": item.id,
            "event_name": item.code,
            "external_customer_id": item.customer,
            "timestamp": timestamp(item.at_us),
            "properties": {item.field: item.quantity, "outcome": item.outcome_id},
        }
    )


def request(endpoint: Endpoint, sent: Sequence[Sent], _: int) -> Request:
    """One event by itself, several in bulk."""
    headers = {"x-api-key": endpoint.secret, "content-type": "application/json"}
    if len(sent) == 1:
        return Request("/v1/events", headers, sent[0].body.encode())
    return Request("/v1/events/bulk", headers, joined(sent))


FLEXPRICE = Target(
    kind="flexprice",
    title="Flexprice",
    url="https://us.api.flexprice.io",
    paths=("/v1/events", "/v1/events/bulk"),
    field="quantity",
    traits=Traits(batch_max=100),
    write=write,
    request=request,
    judge=judged,
    duplicates="202, as for a new one",
    negative="a negative quantity: make the meter a SUM",
)

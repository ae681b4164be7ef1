"""Metronome: `POST /v1/ingest`, a bare list (https://docs.metronome.com/api-reference/usage/ingest-events).

Ids are remembered, and times may lie back, for 34 days.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.billing.events import canonical_json
from sidecar.billing.exports.target import DAY_US, Endpoint, Item, Request, Sent, Target, Traits, bearer, joined, judged
from sidecar.billing.rating.invoice import timestamp


def write(item: Item) -> str:
    """One event; properties that are numbers may be texts there, which keeps them exact."""
    return canonical_json(
        {
            "transaction_id": item.id,
            "customer_id": item.customer,
            "event_type": item.code,
            "timestamp": timestamp(item.at_us),
            "properties": {item.field: f"{item.quantity:f}", "outcome": item.outcome_id},
        }
    )


def request(endpoint: Endpoint, sent: Sequence[Sent], _: int) -> Request:
    """A batch."""
    return Request("/v1/ingest", bearer(endpoint), joined(sent, "[", "]"))


METRONOME = Target(
    kind="metronome",
    title="Metronome",
    url="https://api.metronome.com",
    paths=("/v1/ingest",),
    field="quantity",
    traits=Traits(batch_max=100, memory_us=34 * DAY_US, past_us=34 * DAY_US),
    write=write,
    request=request,
    judge=judged,
    duplicates="200, as for a new one",
    negative="a negative quantity: make the billable metric a sum",
)

"""OpenMeter: CloudEvents, told apart by source and id (https://openmeter.io/docs, Usage Events).

The content type must be exactly one of the two: with a charset it is a 400.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.billing.events import canonical_json
from sidecar.billing.exports.target import DAY_US, Endpoint, Item, Request, Sent, Target, Traits, bearer, joined, judged
from sidecar.billing.rating.invoice import timestamp

SOURCE = "outcome-sidecar"


def write(item: Item) -> str:
    """One CloudEvent."""
    return canonical_json(
        {
            "specversion": "1.0",
            "id": item.id,
            "source": SOURCE,
            "type": item.code,
            "subject": item.customer,
            "time": timestamp(item.at_us),
            "datacontenttype": "application/json",
            "data": {item.field: item.quantity, "outcome": item.outcome_id},
        }
    )


def request(endpoint: Endpoint, sent: Sequence[Sent], _: int) -> Request:
    """A batch, or one event as it is."""
    headers = bearer(endpoint)
    if len(sent) == 1:
        headers["content-type"] = "application/cloudevents+json"
        return Request("/api/v1/events", headers, sent[0].body.encode())
    headers["content-type"] = "application/cloudevents-batch+json"
    return Request("/api/v1/events", headers, joined(sent, "[", "]"))


OPENMETER = Target(
    kind="openmeter",
    title="OpenMeter",
    url="https://openmeter.cloud",
    paths=("/api/v1/events",),
    field="quantity",
    traits=Traits(batch_max=100, memory_us=DAY_US),
    write=write,
    request=request,
    judge=judged,
    duplicates="204, as for a new one",
    negative="a negative quantity: make the meter a SUM",
)

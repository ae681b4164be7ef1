"""Orb: `POST /ingest` (https://docs.withorb.com/api-reference/event/ingest-events).

A key is ingested at most once. Events that cannot be taken are named under `validation_failed`, in a 200 as in a 4xx;
with a 4xx the others are sent again, which a key makes harmless. Times may lie at most 5 minutes ahead; how far back is
the account's grace period (`past_hours`).
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.billing.events import canonical_json
from sidecar.billing.exports.target import (
    MINUTE_US,
    TAKEN,
    Answer,
    Endpoint,
    Item,
    Request,
    Sent,
    Target,
    Traits,
    Verdict,
    bearer,
    joined,
    judged,
)
from sidecar.billing.rating.invoice import timestamp


def write(item: Item) -> str:
    """One event."""
    return canonical_json(
        {
            "event_name": item.code,
            "idempotency_key": item.id,
            "external_customer_id": item.customer,
            "timestamp": timestamp(item.at_us),
            "properties": {item.field: item.quantity, "outcome": item.outcome_id},
        }
    )


def request(endpoint: Endpoint, sent: Sequence[Sent], _: int) -> Request:
    """A batch."""
    return Request("/ingest", bearer(endpoint), joined(sent))


def judge(answer: Answer, sent: Sequence[Sent]) -> list[Verdict]:
    """Those that failed validation by their key."""
    failed = answer.json.get("validation_failed") if isinstance(answer.json, dict) else None
    whole = judged(answer, sent)
    if answer.status == 200 and not isinstance(failed, list):  # not Orb's: something between says so
        return [Verdict("retry", "answered 200 without validation_failed")] * len(sent)
    if not isinstance(failed, list) or answer.status not in {200, 400, 422}:
        return whole
    reasons = {
        one.get("idempotency_key"): canonical_json(one.get("validation_errors"))[:300]
        for one in failed
        if isinstance(one, dict)
    }
    if not reasons.keys() & {one.id for one in sent}:
        return whole
    others = TAKEN if answer.status == 200 else Verdict("again", f"answered {answer.status} because of others")
    return [
        Verdict("refused", f"validation failed: {reasons[one.id]}", unstored=True) if one.id in reasons else others
        for one in sent
    ]


ORB = Target(
    kind="orb",
    title="Orb",
    url="https://api.withorb.com/v1",
    paths=("/ingest",),
    field="quantity",
    traits=Traits(batch_max=500, future_us=5 * MINUTE_US),
    write=write,
    request=request,
    judge=judge,
    duplicates="200, as for a new one",
    negative="a negative quantity: make the metric a sum",
)

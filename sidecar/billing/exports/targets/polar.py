"""Polar: `POST /v1/events/ingest` → `{inserted, duplicates}` (https://polar.sh/docs/api-reference/events/ingest).

Refuses any time in the future, by its own clock: what is sent was in the past by ours, so it is only sent later. A 422
names events as FastAPI does, by a path with their place in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sidecar.billing.events import canonical_json
from sidecar.billing.exports.target import (
    TAKEN,
    THROWN_AWAY,
    Answer,
    Endpoint,
    Item,
    Request,
    Sent,
    Target,
    Traits,
    Verdict,
    bearer,
    by_index,
    joined,
    judged,
)
from sidecar.billing.rating.invoice import timestamp


def write(item: Item) -> str:
    """One event."""
    return canonical_json(
        {
            "name": item.code,
            "external_customer_id": item.customer,
            "external_id": item.id,
            "timestamp": timestamp(item.at_us),
            "metadata": {item.field: item.quantity, "outcome": item.outcome_id},
        }
    )


def request(endpoint: Endpoint, sent: Sequence[Sent], _: int) -> Request:
    """A batch."""
    return Request("/v1/events/ingest", bearer(endpoint), joined(sent))


def judge(answer: Answer, sent: Sequence[Sent]) -> list[Verdict]:
    """Inserted and duplicates together must be all; else nobody can tell which one is missing."""
    content = answer.json if isinstance(answer.json, dict) else {}
    if answer.status == 422 and isinstance(content.get("detail"), list):
        faults = {
            place[2]: _fault(place, one.get("msg"))
            for one in content["detail"]
            if isinstance(one, dict)
            and isinstance(place := one.get("loc"), list)
            and len(place) > 2
            and isinstance(place[2], int)
        }
        if faults.keys() & set(range(len(sent))):
            return by_index(faults, sent, THROWN_AWAY)
    if 200 <= answer.status < 300:
        counts = [content.get("inserted"), content.get("duplicates", 0)]
        if not all(isinstance(count, int) for count in counts) or sum(counts) != len(sent):
            return [Verdict("retry", f"answered {answer.status} but counts do not add up")] * len(sent)
        return [TAKEN] * len(sent)
    return judged(answer, sent)


def _fault(place: list[Any], message: Any) -> Verdict:
    """A clock that is behind ours, or something that will never be taken."""
    early = place[-1] == "timestamp" and "in the past" in str(message)
    return Verdict("retry" if early else "refused", f"answered 422: {canonical_json(message)[:300]}", unstored=True)


POLAR = Target(
    kind="polar",
    title="Polar",
    url="https://api.polar.sh",
    paths=("/v1/events/ingest",),
    field="quantity",
    traits=Traits(batch_max=100, future_us=0),
    write=write,
    request=request,
    judge=judge,
    duplicates="200, counted under `duplicates`",
    negative="a negative quantity: make the meter a sum",
)

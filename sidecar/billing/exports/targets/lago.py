"""Lago: events of subscriptions, 100 a batch, all or nothing (https://docs.getlago.com/api-reference/events/batch).

One event that is a repetition (`value_already_exist`) or wrong throws the whole batch away; the answer names events by
their place. Those are settled, the others are sent again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sidecar.billing.events import canonical_json
from sidecar.billing.exports.target import (
    DUPLICATE,
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


def write(item: Item) -> str:
    """One event; the customer is a subscription's external id."""
    return canonical_json(
        {
            "transaction_id": item.id,
            "external_subscription_id": item.customer,
            "code": item.code,
            "timestamp": item.at_us // 1_000_000,
            "properties": {item.field: item.quantity, "outcome": item.outcome_id},
        }
    )


def request(endpoint: Endpoint, sent: Sequence[Sent], _: int) -> Request:
    """One event by itself, several as a batch."""
    if len(sent) == 1:
        return Request("/api/v1/events", bearer(endpoint), joined(sent, '{"event":', "}"))
    return Request("/api/v1/events/batch", bearer(endpoint), joined(sent))


def judge(answer: Answer, sent: Sequence[Sent]) -> list[Verdict]:
    """Events that a 422 names, by index; what it says of a single event needs no index."""
    details = answer.json.get("error_details") if isinstance(answer.json, dict) else None
    if answer.status != 422 or not isinstance(details, dict):
        return judged(answer, sent)
    if len(sent) == 1 and "0" not in details:
        details = {"0": details}
    faults = {int(index): _fault(detail) for index, detail in details.items() if re.fullmatch("[0-9]{1,4}", index)}
    if not faults.keys() & set(range(len(sent))):
        return judged(answer, sent)
    return by_index(faults, sent, THROWN_AWAY)


def _fault(detail: Any) -> Verdict:
    """A repetition and nothing else, or something that will never be taken."""
    if isinstance(detail, dict) and detail == {"transaction_id": ["value_already_exist"]}:
        return DUPLICATE
    return Verdict("refused", f"answered 422: {canonical_json(detail)[:300]}", unstored=True)


LAGO = Target(
    kind="lago",
    title="Lago",
    url="https://api.getlago.com",
    paths=("/api/v1/events", "/api/v1/events/batch"),
    field="quantity",
    traits=Traits(batch_max=100),
    write=write,
    request=request,
    judge=judge,
    duplicates="422 `value_already_exist`, and the batch is thrown away",
    negative="a negative quantity: make the billable metric a sum",
)

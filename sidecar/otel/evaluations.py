"""An outcome as the event `gen_ai.evaluation.result`: what the session was worth, and which rules said so. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from sidecar.delivery.event import OUTCOME_TYPE, Event
from sidecar.otel import conventions as names
from sidecar.otel.operations import Value, word

NAME: Final = "session_outcome"
EVIDENCE_MAX: Final = 10
_SCORES: Final = {"RESOLVED": 1.0, "NOT_BILLABLE": 0.0, "REVERSED": 0.0}  # INCONCLUSIVE has none


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`time_ns` is the outcome's own time, Unix nanoseconds."""

    time_ns: int
    attributes: dict[str, Value]


def evaluation_of(event: Event) -> Evaluation | None:
    """The evaluation that a posted event is; None for a statement.

    The label is the session's state, of which there are four. The explanation names rules and the kinds of what they
    matched: reasons, which may be anybody's words, stay out.
    """
    document: dict[str, Any] = orjson.loads(event.body)
    if document["type"] != OUTCOME_TYPE:
        return None
    data = document["data"]
    attributes: dict[str, Value] = {
        names.EVALUATION_NAME: NAME,
        names.SCORE_LABEL: data["state"],
        names.EXPLANATION: _explanation(data),
        names.SESSION_ID: data["session_id"],
        names.OUTCOME_ID: event.id,
        names.OUTCOME_NAME: word(data["outcome"]),
        names.OUTCOME_REVISION: data["revision"],
        names.OUTCOME_BILLABLE: data["billable"],
        names.OUTCOME_SHADOW: data["shadow"],
    }
    if (score := _SCORES.get(data["state"])) is not None:
        attributes[names.SCORE_VALUE] = score
    if data["conversation"]:
        attributes[names.CONVERSATION_ID] = data["conversation"]
    at = datetime.fromisoformat(document["time"])
    return Evaluation(round(at.timestamp() * 1000) * 1_000_000, attributes)


def _explanation(data: dict[str, Any]) -> str:
    said = [f"{word(item['rule'])} ({item['kind']})" for item in data["evidence"][:EVIDENCE_MAX]]
    return ", ".join(said) if said else f"no rule: {(data['confirmation'] or 'silence').lower()}"

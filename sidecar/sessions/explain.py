"""Why a session was, or was not, charged: sentences for a person who got an invoice. Pure.

The sidecar knows facts, not prices, so the last sentence says what the plan decides on, never an amount.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sidecar.sessions.states import State
from sidecar.sessions.view import SessionView, rfc3339

MINUTE_MS = 60_000
HOUR_MS = 3_600_000


def explain(session: SessionView) -> list[str]:
    """Plain sentences, in the order in which a person would ask."""
    sentences = [_what(session), _state(session)]
    sentences += [told for _, told in sorted([*_evidence(session), *_history(session)], key=lambda one: one[0])]
    sentences += _trailing(session)
    sentences += _flags(session)
    sentences.append(_charge(session))
    return sentences


def _what(session: SessionView) -> str:
    conversation = f"conversation {session.conversation}" if session.conversation else "a conversation without an id"
    customer = f"customer {session.customer}" if session.customer else "no customer that could be found"
    return (
        f"The session of {conversation}, for {customer}, began at {rfc3339(session.started_ms)}: "
        f"{_count(session.turns, 'user message')}, {_count(session.llm_calls, 'model call')}, "
        f"{_count(session.tool_calls, 'tool call')}."
    )


def _state(session: SessionView) -> str:
    reason = f" ({session.reason})" if session.reason else ""
    at = rfc3339(session.finalized_ms) if session.finalized_ms else ""
    posted = f": revision {session.revision} of what was first posted" if session.revision > 0 else ", posted"
    silence = _span(session.terms.timeout_ms)
    match session.state:
        case State.AI_HANDLING:
            return (
                f"It is open: nothing has resolved or escalated it. Without activity it ends at "
                f"{rfc3339(session.deadline_ms)}, {silence} after the last."
            )
        case State.RESOLVED_PENDING:
            return f"It is resolved{reason} and settles at {rfc3339(session.deadline_ms)} unless that is taken back."
        case State.ESCALATED_TO_HUMAN | State.NOT_BILLABLE:
            return f"It was escalated to a human{reason}{posted} at {at}; escalation wins over any resolution."
        case State.RESOLVED if session.confirmation == "ASSUMED":
            return (
                f"It ended at {at} after {silence} without activity; the plan takes silence for a resolution (ASSUMED)."
            )
        case State.RESOLVED:
            return f"It was resolved as {session.outcome}{reason}{posted} at {at}."
        case State.INCONCLUSIVE:
            return f"It ended at {at} after {silence} without activity: nobody said that it was resolved."
        case State.REVERSED:
            return f"It was resolved, and that was taken back{reason}{posted} at {at}."


def _evidence(session: SessionView) -> Iterator[tuple[int, str]]:
    """What matched, with its time."""
    for item in session.evidence:
        at = rfc3339(item.at_ms)
        proof = f", evidence {item.digest}" if item.digest else ""
        if item.rule == "merge":
            told = f"At {at} session {item.digest} turned out to be the same ({item.kind})."
        elif item.kind == "timeout":
            told = f"At {at} its timer ran out ({item.rule})."
        else:
            told = f"At {at} the rule {item.rule} ({item.kind}) matched{proof}."
        yield item.at_ms, told


def _history(session: SessionView) -> Iterator[tuple[int, str]]:
    """What the timeline tells beside the evidence: what was posted, and what came too late to change it."""
    for entry in session.timeline:
        at = rfc3339(entry["at"])
        if "revision" in entry and session.revision > 0:
            again = "then" if entry["revision"] else "first"
            why = f": {entry['reason']}" if entry.get("reason") else ""
            yield entry["at"], f"At {at} it was {again} posted as {entry['to']} (revision {entry['revision']}){why}."
        elif entry.get("action") == "late":
            window = _span(session.terms.reversal_ms)
            yield (
                entry["at"],
                f"At {at} {_who(entry)} said {entry.get('event', 'something')}, more than {window} after it was final: "
                "that changed nothing.",
            )


def _trailing(session: SessionView) -> list[str]:
    number = sum(entry["what"] == "trailing" for entry in session.timeline)
    return [f"{_count(number, 'exchange')} came after its end and count nowhere."] if number else []


def _who(entry: Mapping[str, Any]) -> str:
    if entry.get("source"):
        return f"the signal {entry.get('id', '')} from {entry['source']}"
    return f"the rule {entry.get('rule', '')}"


def _flags(session: SessionView) -> list[str]:
    flags = []
    if not session.complete:
        consequence = {
            "NO_CHARGE": "so it is not billable",
            "HOLD": "so it is held for an operator",
            "CHARGE": "and is billed all the same",
        }[session.terms.incomplete_policy]
        flags.append(f"A part of its traffic could not be copied; by the plan's incomplete_policy {consequence}.")
    if session.held:
        flags.append("It is held: an operator decides at the billing API whether it is charged.")
    if session.shadow:
        flags.append("It was recorded in shadow mode and is never invoiced.")
    if session.customer is None:
        flags.append("Without a customer it is recorded as unattributed and never invoiced.")
    if session.revision > 0:
        flags.append(f"It was posted {session.revision + 1} times; the last revision replaces the others.")
    return flags


def _charge(session: SessionView) -> str:
    if session.is_open:
        return "Nothing has been posted, so nothing has been charged yet."
    plan = f"plan {session.terms.plan} ({session.terms.digest})"
    if session.state == State.RESOLVED:
        return f"Posted as {session.outcome}: what it costs is decided by the metrics and charges of {plan}."
    return f"Posted as {session.state}: it costs something only if a metric of {plan} counts this."


def _span(ms: int) -> str:
    """A duration as people say it: 90 seconds, 60 minutes, 72 hours."""
    for unit, name in ((HOUR_MS, "hour"), (MINUTE_MS, "minute")):
        if ms >= 2 * unit and ms % unit == 0:
            return _count(ms // unit, name)
    return f"{ms / MINUTE_MS:g} minutes" if ms >= MINUTE_MS else f"{ms / 1000:g} seconds"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

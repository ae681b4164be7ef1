"""A session's history in plain sentences, out of what its events and the decisions about them say. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sidecar.billing.console.wording import ended, money, plural, span
from sidecar.billing.desk import SessionFile
from sidecar.billing.events import parse_time
from sidecar.billing.ledger.entries import Record
from sidecar.billing.ledger.standing import Standing
from sidecar.billing.rating.periods import to_us


class Told(NamedTuple):
    """A moment of it: when (Unix microseconds), what, and what proves it. `tone` is good, warn, bad or nothing."""

    at_us: int
    what: str
    proof: str = ""
    tone: str = ""


_BY_KIND: Mapping[str, str] = {
    "tool_call": "The agent called a tool; the rule “{rule}” took it",
    "request": "What was sent to the agent matched the rule “{rule}”",
    "response": "What the agent answered matched the rule “{rule}”",
    "webhook": "A webhook came that matched the rule “{rule}”",
    "signal": "A signal was posted by “{rule}”",
    "timeout": "Nothing more was said until the timer ran out ({rule})",
}
_STATES: Mapping[str, tuple[str, str]] = {
    "RESOLVED": ("resolved", "good"),
    "NOT_BILLABLE": ("escalated to a human", "warn"),
    "INCONCLUSIVE": ("inconclusive", ""),
    "REVERSED": ("not resolved after all", "bad"),
}
_DECIDED: Mapping[str, tuple[str, str]] = {
    "release": ("released it, to be charged", "good"),
    "drop": ("dropped it: it is never charged", "bad"),
    "reverse": ("took it back: what was charged is credited", "bad"),
    "assign": ("said whose it is: {assigned}", "good"),
}


class Verdict(NamedTuple):
    """The answer in a few words, and why."""

    text: str
    why: str


def verdict(found: SessionFile) -> Verdict:
    """What somebody who got an invoice asks first: was this charged, and why?"""
    last, reason = found.last, json.loads(found.last["body"])["data"].get("reason")
    because = f": {reason}" if reason else ""
    state = ended(f"It was {_STATES[last['state']][0]}{because}")
    if found.stands in _NOT_CHARGED:
        text, why = _NOT_CHARGED[found.stands]
        return Verdict(text, f"{state} {why}")
    if found.standing is None:
        return Verdict("See the invoice", state)
    text, why = _charged(found.standing)
    return Verdict(text, f"{state} {why}")


_NOT_CHARGED: Mapping[str, tuple[str, str]] = {
    "a shadow event": ("Never charged", "It was recorded in shadow mode."),
    "declared not billable by its sidecar": ("Not charged", "Its sidecar declared it not billable."),
    "held": ("Held", "It is charged only if an operator releases it."),
    "unattributed and held": ("Held", "No customer was found in its traffic, and it waits for an operator."),
    "unattributed": ("Of nobody", "No customer was found in its traffic, so nobody is charged."),
    "dropped": ("Dropped", "It was held, and an operator decided that it is never charged."),
}


def _charged(standing: Standing) -> tuple[str, str]:
    """What all that stands on invoices comes to."""
    postings = standing.postings
    if not any(one.units or one.trial for one in postings):
        return "Not charged", "No metric of its plan counts it."
    if standing.worth is None:
        return "Counted", "What it costs is said by the invoice."
    amounts = [money(amount, code) for code, amount in standing.worth.items() if amount]
    if amounts:
        return f"Charged {' and '.join(amounts)}", "That is what the invoice costs more with it than without."
    if any(one.kind == "credit" for one in postings):
        return "Taken back", "What was charged for it is credited."
    if all(one.trial for one in postings):
        return "Free: trial", "It ended within the customer’s trial."
    return "Counted, at no cost", "The invoice would be the same without it."


def timeline(revisions: Sequence[Record], decisions: Iterable[Mapping[str, Any]]) -> list[Told]:
    """Everything that is known, in the order of time. `revisions`: ledger rows, oldest first."""
    found: list[Told] = []
    seen: set[str] = set()
    for row in revisions:
        data = json.loads(row["body"])["data"]
        if not found:
            found += _beginning(data)
        for item in _evidence(data):
            key = json.dumps(item, sort_keys=True)
            if key not in seen:
                seen.add(key)
                found += _matched(item)
        found.append(_posted(row, data))
    found += map(_decided, decisions)
    return sorted(found, key=lambda one: one.at_us)


def _beginning(data: Mapping[str, Any]) -> Iterator[Told]:
    at_us = _instant(data.get("started_at"))
    if at_us is not None:
        counts = [("turns", "message of the user", "messages of the user"), ("llm_calls", "model call", "model calls"),
                  ("tool_calls", "tool call", "tool calls")]  # fmt: skip
        said = [plural(data[name], one, many) for name, one, many in counts if isinstance(data.get(name), int)]
        yield Told(at_us, "The session began" + (f"; until its end it had {', '.join(said)}" if said else ""))


def _evidence(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    given = data.get("evidence")
    return [item for item in given if isinstance(item, Mapping)] if isinstance(given, list) else []


def _matched(item: Mapping[str, Any]) -> Iterator[Told]:
    at_us = _instant(item.get("at"))
    if at_us is None:
        return
    rule, kind = str(item.get("rule", "")), str(item.get("kind", ""))
    if rule == "merge":
        yield Told(at_us, f"Another session turned out to be the same one ({kind})", str(item.get("digest") or ""))
        return
    sentence = _BY_KIND.get(kind, "The rule “{rule}” matched ({kind})")
    yield Told(at_us, sentence.replace("{kind}", kind).replace("{rule}", rule), str(item.get("digest") or ""))


def _posted(row: Record, data: Mapping[str, Any]) -> Told:
    words, tone = _STATES[row["state"]]
    if row["state"] == "RESOLVED" and data.get("confirmation") == "ASSUMED":
        words = "resolved, as its plan takes silence for"
    named = f" with the outcome {row['outcome']}" if row["state"] == "RESOLVED" and row["outcome"] != "RESOLVED" else ""
    reason = f": {data['reason']}" if data.get("reason") else ""
    late_us = row["received_us"] - row["at_us"]
    late = f". It arrived here {span(late_us)} later" if late_us >= 60_000_000 else ""
    again = "It was posted as" if not row["revision"] else f"A later revision ({row['revision']}) replaced that: it was"
    marks = [text for text, holds in (
        ("held for a decision", row["held"]), ("declared not billable", not row["billable"]),
        ("in shadow mode, never invoiced", row["shadow"]), ("a part of its traffic could not be copied",
        data.get("complete") is False),
    ) if holds]  # fmt: skip
    more = f" ({'; '.join(marks)})" if marks else ""
    return Told(row["at_us"], f"{again} {words}{named}{more}{reason}{late}", row["id"], tone)


def _decided(one: Mapping[str, Any]) -> Told:
    words, tone = _DECIDED[one["kind"]]
    words = words.replace("{assigned}", str(one["assigned"]))
    return Told(one["decided_us"], f"{one['actor']} {words}. Reason: {one['reason']}", one["outcome_id"], tone)


def _instant(text: object) -> int | None:
    try:
        return to_us(parse_time(text)) if isinstance(text, str) else None
    except ValueError:
        return None

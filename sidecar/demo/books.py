"""What must stand in the books, computed here from the script alone, against what the billing API says. Pure.

Nothing of the rating engine is used: the demo's plan charges one rate for each resolution after the free ones, which
is one line of arithmetic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from sidecar.demo.script import Expected, Part, sessions

STATES = ("RESOLVED", "NOT_BILLABLE", "INCONCLUSIVE", "REVERSED")
OUTCOME_OF = {"RESOLVED": "RESOLVED", "NOT_BILLABLE": "ESCALATED_TO_HUMAN", "REVERSED": "UNRESOLVED"}
CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Tariff:
    """What the demo's plan charges."""

    rate: Decimal
    free: int
    currency: str

    @classmethod
    def of(cls, plan: Mapping[str, Any]) -> Tariff:
        """From the parsed YAML of a plan with a `pricing` of one rate."""
        pricing = plan["rate_plan"]["pricing"]
        return cls(Decimal(str(pricing["rate"])), int(pricing["included_free"]), str(pricing["currency"]))

    def charge(self, resolutions: int) -> Decimal:
        """Exactly, to the cent."""
        return (max(0, resolutions - self.free) * self.rate).quantize(CENT, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class Spoken:
    """What the agent saw of one session: the SDK's view, which the sidecar had no part in."""

    llm_calls: int
    tool_calls: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Posted:
    """One outcome event as it stands in the ledger."""

    id: str
    time: str
    customer: str
    data: Mapping[str, Any]

    @property
    def session(self) -> str:
        """`ses_…`."""
        return str(self.data["session_id"])

    @property
    def revision(self) -> int:
        """0 for the first outcome of a session."""
        return int(self.data["revision"])


def by_session(rows: Iterable[Posted]) -> dict[str, list[list[Posted]]]:
    """The events of each conversation: its sessions by their start, each with its revisions in order."""
    grouped: dict[str, dict[str, list[Posted]]] = {}
    for row in rows:
        grouped.setdefault(str(row.data["conversation"]), {}).setdefault(row.session, []).append(row)
    return {
        conversation: sorted(
            (sorted(events, key=lambda event: event.revision) for events in found.values()),
            key=lambda events: str(events[0].data["started_at"]),
        )
        for conversation, found in grouped.items()
    }


def states(rows: Iterable[Posted]) -> dict[str, int]:
    """How many sessions ended in each state, by their last revision."""
    latest: dict[str, Posted] = {}
    for row in rows:
        if row.session not in latest or row.revision > latest[row.session].revision:
            latest[row.session] = row
    counted = Counter(str(row.data["state"]) for row in latest.values())
    return {state: counted.pop(state, 0) for state in STATES} | dict(counted)


def states_expected(parts: list[Part]) -> dict[str, int]:
    """The same, by the script."""
    counted = Counter(expected.states[-1] for _, _, expected in sessions(parts))
    return {state: counted[state] for state in STATES}


@dataclass(frozen=True, slots=True)
class Resolutions:
    """Of one customer: sessions that were ever charged, and those of them whose charge was not taken back."""

    charged: int
    kept: int


def resolutions_expected(parts: list[Part]) -> dict[str, Resolutions]:
    """What each customer's invoice is made of, by the script."""
    charged, kept = Counter[str](), Counter[str]()
    for part, _, expected in sessions(parts):
        charged[part.customer] += "RESOLVED" in expected.states
        kept[part.customer] += expected.states[-1] == "RESOLVED"
    return {customer: Resolutions(charged[customer], kept[customer]) for customer in charged}


def session_differences(parts: list[Part], spoken: Mapping[str, Sequence[Spoken]], rows: Sequence[Posted]) -> list[str]:
    """Every figure of every session that is not as the script has it, in sentences."""
    found = by_session(rows)
    differences = _not_once(rows)
    for part in parts:
        posted = found.pop(part.conversation, [])
        expected = part.scenario.sessions
        if len(posted) != len(expected):
            differences.append(f"{part}: {len(posted)} sessions were posted, {len(expected)} are right")
            continue
        if len(spoken[part.conversation]) != len(expected):
            differences.append(f"{part}: the agent did not get to its last session")
            continue
        for number, (events, right, seen) in enumerate(
            zip(posted, expected, spoken[part.conversation], strict=True), 1
        ):
            differences += [f"{part}, session {number}: {text}" for text in _compare(part, events, right, seen)]
    differences += [
        f"conversation {conversation} is not in the script, and has {len(posted)} sessions"
        for conversation, posted in found.items()
    ]
    return differences


def missing(parts: list[Part], rows: Sequence[Posted]) -> list[Part]:
    """The conversations whose sessions have not all been posted, through all their states, as the script has it."""
    found = by_session(rows)
    return [
        part
        for part in parts
        if [tuple(str(event.data["state"]) for event in events) for events in found.get(part.conversation, [])]
        != [expected.states for expected in part.scenario.sessions]
    ]


def _not_once(rows: Sequence[Posted]) -> list[str]:
    ids = Counter(row.id for row in rows)
    revisions = Counter((row.session, row.revision) for row in rows)
    return [f"outcome {id_} stands in the ledger {count} times" for id_, count in ids.items() if count > 1] + [
        f"revision {revision} of {session} was posted as {count} outcomes"
        for (session, revision), count in revisions.items()
        if count > 1
    ]


def _compare(part: Part, events: Sequence[Posted], right: Expected, seen: Spoken) -> list[str]:
    differences = []
    if (seen.llm_calls, seen.tool_calls) != (right.llm_calls, right.tool_calls):
        differences.append(
            f"the agent left the script: {seen.llm_calls} model calls and {seen.tool_calls} tool calls,"
            f" {right.llm_calls} and {right.tool_calls} are right"
        )
    posted_states = tuple(str(event.data["state"]) for event in events)
    if posted_states != right.states:
        differences.append(f"posted as {' then '.join(posted_states)}, {' then '.join(right.states)} is right")
    for revision, event in enumerate(events):
        wanted = {
            "revision": revision,
            "outcome": OUTCOME_OF.get(str(event.data["state"]), event.data["state"]),
            "escalated_to_human": event.data["state"] == "NOT_BILLABLE",
            "reverses": events[revision - 1].id if revision else None,
            "customer": part.customer,
            "turns": right.turns,
            "llm_calls": right.llm_calls,
            "tool_calls": right.tool_calls,
            "tokens": {"input": seen.input_tokens, "output": seen.output_tokens},
            "complete": True,
            "billable": True,
            "shadow": False,
            "held": False,
        }
        got = {**event.data, "customer": event.customer}
        differences += [
            f"revision {revision}: {name} is {got.get(name)!r}, {value!r} is right"
            for name, value in wanted.items()
            if got.get(name) != value
        ]
    return differences


def invoice_differences(
    customer: str, invoice: Mapping[str, Any], resolutions: Resolutions, tariff: Tariff
) -> list[str]:
    """Every figure of one invoice that is not as the arithmetic has it.

    A charge that was taken back stays on its line, and is a credit of what the month costs with it, minus without it.
    """
    subtotal, total = tariff.charge(resolutions.charged), tariff.charge(resolutions.kept)
    lines = invoice["lines"]
    figures: list[tuple[str, Any, Any]] = [
        ("customer", invoice["customer"], customer),
        ("currency", invoice["currency"], tariff.currency),
        ("number of lines", len(lines), 1),
        ("subtotal", Decimal(invoice["subtotal"]), subtotal),
        ("credits", Decimal(invoice["credits"]), subtotal - total),
        ("total", Decimal(invoice["total"]), total),
    ]
    if len(lines) == 1:
        line = lines[0]
        figures += [
            ("quantity", Decimal(str(line["quantity"])), Decimal(resolutions.charged)),
            ("free", Decimal(str(line["free"])), Decimal(min(resolutions.charged, tariff.free))),
            ("billed", Decimal(str(line["billed"])), Decimal(max(0, resolutions.charged - tariff.free))),
            ("amount", Decimal(line["amount"]), subtotal),
        ]
    return [f"invoice of {customer}: {name} is {got}, {right} is right" for name, got, right in figures if got != right]


def summary_differences(parts: list[Part], summary: Mapping[str, Any], tariff: Tariff) -> list[str]:
    """Every figure of the month over all customers that does not follow from the script.

    A session counts by its first event; a later revision as reversed when it takes a charge back, else as revised.
    """
    first = Counter(expected.states[0] for _, _, expected in sessions(parts))
    later = Counter(expected.states[0] for _, _, expected in sessions(parts) if len(expected.states) > 1)
    kept = [resolutions.kept for resolutions in resolutions_expected(parts).values()]
    figures: list[tuple[str, Any, Any]] = [
        ("sessions", summary["sessions"], sum(first.values())),
        ("free and charged", summary["free"] + summary["charged"], first["RESOLVED"]),
        ("escalated", summary["escalated"], first["NOT_BILLABLE"]),
        ("inconclusive", summary["inconclusive"], first["INCONCLUSIVE"]),
        ("reversed", summary["reversed"], later["RESOLVED"]),
        ("revised", summary["revised"], later["INCONCLUSIVE"]),
        ("revenue", Decimal(summary["revenue"]), sum(map(tariff.charge, kept), Decimal(0))),
        *((name, summary[name], 0) for name in ("held", "not_billable", "trial", "unmatched")),
    ]
    return [f"summary: {name} is {got}, {right} is right" for name, got, right in figures if got != right]

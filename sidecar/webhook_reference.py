"""The known senders of webhooks and what their events mean, taken from the data: two tables in docs/webhooks.md."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from sidecar.intake.sources import SOURCES, STANDARD, TOLERANCE_MS, Scheme
from sidecar.policy.plan import ConditionSpec, SignalRule
from sidecar.policy.rules import builtin_webhook_rules

_ALGORITHMS = {
    "hmac-sha256": "HMAC-SHA256 of",
    "hmac-sha1": "HMAC-SHA1 of",
    "sha256": "SHA-256 of",
    "rsa-sha256": "RSA-SHA256 of",
}
_OPERATORS = {"EQUALS": "is", "IN": "is one of", "NOT_IN": "is none of", "NOT_EQUALS": "is not"} | {
    "GREATER_OR_EQUAL": "≥",
    "LESS_OR_EQUAL": "≤",
}


def document(page: str) -> str:
    """`page` with the tables between their markers renewed; raises ValueError when a marker is missing."""
    return _between(_between(page, "senders", _senders()), "mapping", _mapping())


def _between(page: str, name: str, rows: Iterator[str]) -> str:
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    before, found, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"the page needs the markers {begin.strip()} and {end}")
    return before + begin + "".join(f"{row}\n" for row in rows) + end + after


def _senders() -> Iterator[str]:
    yield "| source | is | have it send | signed by | the conversation | documented |"
    yield "|---|---|---|---|---|---|"
    for source in (*SOURCES.values(), STANDARD):
        name = f"`{source.name}`" if source.name else "any other name"
        signed = "; or ".join(_signed(scheme) for scheme in source.schemes)
        pages = ", ".join(f"[{number}]({page})" for number, page in enumerate(source.docs, 1))
        yield f"| {name} | {source.title} | {source.subscribe} | {signed} | `{_cell(source.conversation)}` | {pages} |"


def _signed(scheme: Scheme) -> str:
    if scheme.algorithm == "secret":
        return f"nothing: the secret itself in `{scheme.signature}: {scheme.prefix}…`"
    time = f", ± {TOLERANCE_MS // 60_000} min of `{scheme.timestamp}`" if scheme.timestamp else ""
    written = f"{scheme.prefix}{scheme.encoding}" if scheme.prefix else scheme.encoding
    return f"{_ALGORITHMS[scheme.algorithm]} `{scheme.message}` in `{scheme.signature}` ({written}){time}"


def _mapping() -> Iterator[str]:
    yield "| rule | holds when | means |"
    yield "|---|---|---|"
    for rule in builtin_webhook_rules():
        conditions = "; ".join(_condition(one) for one in rule.conditions)
        yield f"| `{rule.id}` | {conditions} | {_meaning(rule)} |"


def _condition(condition: ConditionSpec) -> str:
    if condition.operator == "EXISTS":
        return f"`{condition.field}` is there"
    values = condition.value if isinstance(condition.value, list) else [condition.value]
    shown = ", ".join(f"`{value}`" if value != "" else "empty" for value in values)
    return f"`{condition.field}` {_OPERATORS[condition.operator]} {shown}"


def _meaning(rule: SignalRule) -> str:
    if rule.set.escalated_to_human:
        return "escalated"
    if rule.set.outcome == "UNRESOLVED":
        return "the resolution is taken back"
    return "resolved" if rule.set.confirmation == "CONFIRMED" else "resolved (assumed)"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(document(path.read_text(encoding="utf-8")), encoding="utf-8")

"""Before an entry is sent: may it be, and as what? And after: where does it stand? Pure; every move is in one table.

What matters is what the target may know. `unsure_us` is the first attempt after which it may have the entry although it
never said so. While the target remembers ids, sending the same again is harmless. After that it is a guess, and an
entry is parked instead.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sidecar.billing.exports.target import HOUR_US, MINUTE_US, Act, Result, Traits, Verdict

Cause = Literal["ambiguous", "refused", "too_old", "in_the_future", "no_customer"]
CAUSES: Mapping[str, str] = {
    "ambiguous": "it was sent, never answered, and the target may have forgotten its id: look there whether it has it",
    "refused": "the target will not take it as it is",
    "too_old": "its time lies further back than the target accepts",
    "in_the_future": "its time lies further ahead than a wrong clock explains",
    "no_customer": "nobody has said which customer this is at the target",
}
# What an answer makes of an entry that was waiting.
MOVES: Mapping[Result, str] = {
    "taken": "acknowledged",
    "duplicate": "acknowledged",
    "refused": "parked",
    "retry": "waiting",
    "again": "waiting",
    "alone": "waiting",
}
WAIT_FOR_US = HOUR_US  # a time this far ahead is waited for
_MARGIN_US = 2 * MINUTE_US  # a request under way arrives within it
_FIRST_RETRY_US, _LONGEST_RETRY_US = 1_000_000, 5 * MINUTE_US


@dataclass(frozen=True, slots=True)
class Park:
    """Not to be sent."""

    cause: Cause
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Not to be sent before."""

    until_us: int


def gate(row: Mapping[str, Any], traits: Traits, now_us: int) -> Park | Wait | None:
    """None: it may be sent now."""
    unsure = row["unsure_us"]
    bounds = [traits.memory_us, traits.cancel_us if row["act"] == "cancel" else None]
    memory = min((bound for bound in bounds if bound is not None), default=None)
    if unsure is not None and memory is not None and now_us - unsure >= memory - _MARGIN_US:
        return Park("ambiguous", CAUSES["ambiguous"])
    if traits.past_us is not None and row["at_us"] < now_us - traits.past_us + _MARGIN_US:
        return Park("ambiguous" if unsure is not None else "too_old", CAUSES["too_old"])
    if traits.future_us is not None and row["at_us"] > now_us + traits.future_us:
        ahead = row["at_us"] - traits.future_us
        return Wait(ahead) if ahead - now_us <= WAIT_FOR_US else Park("in_the_future", CAUSES["in_the_future"])
    return None


def act_of(
    row: Mapping[str, Any], before: Sequence[Mapping[str, Any]], traits: Traits, now_us: int
) -> tuple[Act, str | None]:
    """(what it is sent as, the id that it cancels); `before` are the outcome's earlier entries at the meter."""
    if not row["quantity"].startswith("-"):
        return "usage", None
    if traits.cancel_us is not None and len(before) == 1:
        [first] = before
        sent = first["sent_us"]
        young = sent is not None and now_us - sent < traits.cancel_us - _MARGIN_US
        if young and row["quantity"] == f"-{first['quantity']}":
            return "cancel", first["id"]
    return "credit", None


def after(
    row: Mapping[str, Any], unsure_before: int | None, verdict: Verdict, now_us: int, retry_after_us: int | None
) -> dict[str, Any]:
    """The columns that a verdict changes. `unsure_before` is `unsure_us` as it was before this attempt."""
    state = MOVES[verdict.result]
    values: dict[str, Any] = {"state": state, "claim": None, "reason": verdict.reason or None}
    if state == "acknowledged":
        return values | {"acknowledged_us": now_us}
    if verdict.unstored:
        values["unsure_us"] = unsure_before
    if verdict.key_spent:
        values["keys_spent"] = row["keys_spent"] + 1
    if state == "parked":
        unsure = unsure_before is not None
        return values | {"cause": "ambiguous" if unsure else "refused"}
    if verdict.result == "alone":
        values["alone"] = True
    wait = 0 if verdict.result in {"again", "alone"} else _backoff(row["attempts"])
    if retry_after_us is not None and verdict.result == "retry":
        wait = max(wait, retry_after_us)
    return values | {"next_us": now_us + wait}


def _backoff(attempts: int) -> int:
    """Doubling from a second to five minutes, with jitter so that replicas do not come together."""
    longest = min(_FIRST_RETRY_US * 2 ** min(attempts, 20), _LONGEST_RETRY_US)
    return random.randint(longest // 2, longest)  # noqa: S311 - spreads load, guards nothing

"""What a plan says about sessions, in the compact form that travels with every observation and signal.

A session keeps the terms under which it opened, so a changed plan touches new sessions only, and a replay of the
journal judges by the terms of the day.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ChargePolicy = Literal["NO_CHARGE", "CHARGE", "HOLD"]


@dataclass(frozen=True, slots=True)
class Terms:
    """`session_config` of a plan in milliseconds, with the plan's name and the digest of its file."""

    plan: str
    digest: str
    timeout_ms: int = 60 * 60_000
    settle_ms: int = 0
    reversal_ms: int = 72 * 3_600_000
    inconclusive_policy: ChargePolicy = "NO_CHARGE"
    incomplete_policy: ChargePolicy = "NO_CHARGE"
    on_return: Literal["NEW_SESSION", "REVERSE"] = "NEW_SESSION"

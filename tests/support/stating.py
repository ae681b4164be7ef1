"""A sidecar as its statements show it: sessions are over at times of their own, and are counted when it gets there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from billing_api import NOW_US, event

from sidecar.delivery.event import statement_event
from sidecar.sessions.outcome import Statement
from sidecar.sessions.scripts import LIMITS
from sidecar.sessions.view import rfc3339

SECOND_US = 1_000_000
MINUTE_US, HOUR_US = 60 * SECOND_US, 3600 * SECOND_US


def instant(us: int) -> str:
    return rfc3339(us // 1000)


@dataclass(frozen=True)
class Final:
    """A session: the time of its outcome, when it was counted, when its outcome was posted."""

    number: int
    at_us: int
    counted_us: int
    posted_us: int

    def event(self) -> dict[str, Any]:
        return event(self.number, time=instant(self.at_us))


@dataclass
class Counters:
    """What Redis keeps since it was last empty."""

    generation: str
    begun_us: int
    finals: list[Final] = field(default_factory=list)

    def statement(self, at_us: int, tenant: str = "acme") -> dict[str, Any]:
        """Of what was counted until then."""
        counted = [one for one in self.finals if one.counted_us <= at_us]
        hours = Counter(one.at_us // HOUR_US for one in counted)
        told = sorted(hours)[-LIMITS["stated_hours"] :]
        hour_ms = at_us // HOUR_US * HOUR_US // 1000
        stated = Statement(
            tenant, rfc3339(hour_ms)[:13], hour_ms, self.generation, {"opened": len(counted) + 3, "open": 3},
            {"RESOLVED": len(counted)}, 0, at_us // 1000, {str(hour): hours[hour] for hour in told},
            len(counted) - sum(hours[hour] for hour in told),
        )  # fmt: skip
        return json.loads(statement_event(stated).body)


def finals(random: Random, hours: int, per_hour: int, away_us: int) -> list[Final]:
    """Clocks differ by up to two minutes. Most are counted at once, some when a replica that was away is back; outboxes
    lag by up to half an hour.
    """
    found = []
    for number in range(hours * per_hour):
        at_us = NOW_US + int(random.random() * hours * HOUR_US)
        late_us = random.choice([0, 0, 0, 3 * SECOND_US, 20 * MINUTE_US, away_us])
        counted_us = at_us + late_us + random.randint(-2 * MINUTE_US, 2 * MINUTE_US)
        found.append(Final(number, at_us, counted_us, counted_us + random.randint(0, 30 * MINUTE_US)))
    return found


def statements(random: Random, lives: Sequence[Counters], hours: int) -> list[tuple[int, dict[str, Any]]]:
    """One an hour and generation, by whichever replica asks first, and when it was posted."""
    found = []
    for one, following in zip(lives, [*lives[1:], None], strict=True):
        end_us = following.begun_us if following else NOW_US + hours * HOUR_US
        hour_us = one.begun_us
        while hour_us < end_us:
            at_us = hour_us + random.randint(0, 40 * SECOND_US)
            if any(final.counted_us <= at_us for final in one.finals):
                found.append((at_us + random.randint(0, 30 * MINUTE_US), one.statement(at_us)))
            hour_us = hour_us // HOUR_US * HOUR_US + HOUR_US
    return found

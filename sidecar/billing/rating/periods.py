"""Billing periods: calendar months in UTC. Instants are Unix microseconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

DAY_US = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(moment: datetime) -> int:
    """Unix microseconds of an instant with a time zone."""
    return (moment - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """The instant of Unix microseconds, in UTC."""
    return _EPOCH + timedelta(microseconds=us)


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """One month."""

    year: int
    month: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`2026-11`; raises ValueError saying what to write."""
        match = re.fullmatch(r"([0-9]{4})-([0-9]{2})", text)
        if match is None or not 1970 <= int(match[1]) <= 9998 or not 1 <= int(match[2]) <= 12:
            raise ValueError(f"{text!r} is no period: write a month like 2026-11")
        return cls(int(match[1]), int(match[2]))

    @property
    def first(self) -> bool:
        """Whether none before it can be asked for."""
        return (self.year, self.month) == (1970, 1)

    @property
    def next(self) -> Period:
        """The month after it."""
        return Period(self.year + 1, 1) if self.month == 12 else Period(self.year, self.month + 1)

    @property
    def before(self) -> Period:
        """The month before it."""
        return Period(self.year - 1, 12) if self.month == 1 else Period(self.year, self.month - 1)

    @classmethod
    def of(cls, us: int) -> Self:
        """The period in which an instant lies."""
        moment = from_us(us)
        return cls(moment.year, moment.month)

    @property
    def start_us(self) -> int:
        """The first instant."""
        return to_us(datetime(self.year, self.month, 1, tzinfo=UTC))

    @property
    def end_us(self) -> int:
        """The first instant after it."""
        return self.next.start_us

    def __hash__(self) -> int:
        """Quick: sums are kept by period."""
        return self.year * 12 + self.month

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"

"""What `/v1/exports` answers. Units are decimal texts, instants RFC 3339 in UTC, periods `2026-11`."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class ExportUnits(TypedDict):
    """Units by what became of them."""

    acknowledged: str
    waiting: str
    parked: str


class ExportReconciliation(ExportUnits):
    """What the rows of a period count at a meter, beside what was written; `difference` is not written yet."""

    period: str
    ledger: str
    difference: str


class ExportMeter(TypedDict):
    """A meter at a target: entries by what became of them."""

    target: str
    kind: str
    meter: str
    since: str
    written: int
    sent: int
    acknowledged: int
    waiting: int
    parked: int
    causes: dict[str, int]
    units: ExportUnits
    oldest_waiting_seconds: int | None
    reconciliation: ExportReconciliation | None


class ExportsShown(TypedDict):
    """Every meter of every target."""

    exports: list[ExportMeter]


class ExportEntry(TypedDict):
    """One entry: units of an outcome for a meter, below zero when it takes something back."""

    id: str
    meter: str
    outcome_id: str
    customer: str
    period: str
    quantity: str
    state: Literal["waiting", "acknowledged", "parked"]
    cause: str | None
    reason: str | None
    act: Literal["usage", "credit", "cancel"] | None
    attempts: int
    time: str
    created_at: str
    sent_at: str | None
    acknowledged_at: str | None


class ExportEntries(TypedDict):
    """A page of entries."""

    entries: list[ExportEntry]
    next: str | None


class Redelivered(TypedDict):
    """How many entries were decided about, and how many of the target stay parked."""

    decided: int
    parked: int

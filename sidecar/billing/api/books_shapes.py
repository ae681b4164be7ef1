"""What `GET /v1/books` answers."""

from __future__ import annotations

from typing_extensions import TypedDict


class StatedCounters(TypedDict):
    """Counters of a statement. `unexplained` is opened minus open minus finalized, `untold` is finalized minus what the
    statement tells by hours, if it does: both must be 0.
    """

    opened: int
    open: int
    finalized: int
    by_state: dict[str, int]
    dropped_copies: int
    unexplained: int
    untold: int


class Compared(TypedDict):
    """Sessions that the statement counts as finalized, and how many of them are in the ledger."""

    stated: int
    arrived: int


class Overdue(TypedDict):
    """The newest statement that is an hour old, and how many of the sessions that it counts are missing even now."""

    stated_at: str
    received_at: str
    missing: int


class TenantBooks(TypedDict):
    """One tenant's last statement beside the ledger."""

    tenant: str
    stated_at: str
    received_at: str
    generation: str
    since: str | None
    stated: StatedCounters
    compared: Compared
    difference: int
    arrived_since: int
    overdue: Overdue | None
    alarm: bool


class BooksShown(TypedDict):
    """Whether what the sidecars state has arrived. `more`: there are more tenants than are looked at, by name."""

    tenants: list[TenantBooks]
    more: bool
    difference: int
    alarm: bool

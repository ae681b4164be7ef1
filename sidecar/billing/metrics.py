"""`GET /metrics`: what this replica took, and where the database stands. Tenants, and the targets and meters of the
exports' file, are the only labels from outside; of tenants there are at most `TENANTS_MAX`.
"""

from __future__ import annotations

from typing import Final, get_args

from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar import measures
from sidecar.billing.alerts import undelivered
from sidecar.billing.exports.service import Exports
from sidecar.billing.exports.target import Result
from sidecar.billing.ledger.catalog import read_closings
from sidecar.billing.ledger.reconcile import reconcile
from sidecar.billing.ledger.stated import TENANTS_MAX as LOOKED_AT
from sidecar.billing.ledger.stated import tenants
from sidecar.billing.ledger.tables import pending
from sidecar.billing.service import Billing, Receipt
from sidecar.billing.work.runs import open_runs
from sidecar.measures import CONTENT_TYPE, Label, Measure, plain

__all__ = ["CONTENT_TYPE", "SHOWN", "TENANTS_MAX", "Metrics"]

TENANTS_MAX = 100

_TENANT: Final = Label("tenant", bound=f"the first {TENANTS_MAX} tenants by name")
_TARGET: Final = Label("target", bound="the targets in `SIDECAR_BILLING_EXPORTS`")
_METER: Final = Label("meter", bound="their meters")


def _measure(kind: str, name: str, meaning: str, *labels: Label) -> Measure:
    return Measure(f"sidecar_billing_{name}", "counter" if kind == "counter" else "gauge", meaning, labels)


STARTED: Final = _measure("gauge", "start_time_seconds", "When this replica was started, in Unix time")
EVENTS: Final = _measure(
    "counter",
    "events_total",
    "Events posted to this replica, by what became of them",
    plain("result", "accepted", "duplicate", "conflict", "rejected"),
)
WAITING: Final = _measure("gauge", "ingest_waiting_events", "Events that wait for a transaction in this replica")
REFUSED: Final = _measure("counter", "ingest_refused_events_total", "Events sent away because too many waited")
PENDING: Final = _measure("gauge", "pending_rows", "Events and decisions not summed up yet")
OUTDATED: Final = _measure(
    "gauge", "outdated_customers", "Customers that this replica has found to sum up anew, after a change of a plan, say"
)
CLOSED: Final = _measure("gauge", "closed_period", "The newest closed period, as 202611; 0: none")
ALERTS_WAITING: Final = _measure("gauge", "alerts_waiting", "Alerts about spending not delivered yet")
ALERTS_GIVEN_UP: Final = _measure("gauge", "alerts_given_up", "Alerts that the receiver never took")
DIFFERENCE: Final = _measure(
    "gauge",
    "statement_difference",
    "Sessions that the newest statement counts as finalized and that have not arrived",
    _TENANT,
)
ALARM: Final = _measure(
    "gauge",
    "statement_alarm",
    "1 while sessions that were stated an hour ago or earlier are missing, or the newest statement does not add up",
    _TENANT,
)
NOT_SHOWN: Final = _measure(
    "gauge",
    "tenants_not_shown",
    f"Tenants whose statements are not shown here because there are too many; {LOOKED_AT + 1 - TENANTS_MAX}: or more",
)
RUNS: Final = _measure("gauge", "runs_open", "Backtests and other long work that waits or goes on, of all replicas")
EXPORT_ENTRIES: Final = _measure(
    "gauge",
    "export_entries",
    "Entries for a meter of another billing system that are not acknowledged, by state",
    _TARGET,
    _METER,
    plain("state", "waiting", "parked"),
)
EXPORT_AGE: Final = _measure(
    "gauge", "export_oldest_waiting_seconds", "How long the oldest entry that is not parked has waited", _TARGET, _METER
)
EXPORT_ANSWERS: Final = _measure(
    "counter",
    "export_answers_total",
    "Answers of other billing systems to entries, by what they meant",
    _TARGET,
    plain("result", *get_args(Result)),
)
EXPORT_HELD_UP: Final = _measure(
    "counter",
    "export_held_up_total",
    "Batches that were due while concurrency_max requests of this replica were on their way",
    _TARGET,
)
SHOWN: Final = (
    STARTED,
    EVENTS,
    WAITING,
    REFUSED,
    PENDING,
    OUTDATED,
    CLOSED,
    ALERTS_WAITING,
    ALERTS_GIVEN_UP,
    DIFFERENCE,
    ALARM,
    NOT_SHOWN,
    RUNS,
    EXPORT_ENTRIES,
    EXPORT_AGE,
    EXPORT_ANSWERS,
    EXPORT_HELD_UP,
)


class Metrics:
    """The numbers of one replica's API and of its database."""

    def __init__(self, billing: Billing) -> None:
        self._billing = billing
        self._registry = registry = CollectorRegistry()
        measures.gauge(STARTED, registry).set(billing.clock() / 1_000_000)
        self._events = measures.counter(EVENTS, registry)
        self._queued = measures.gauge(WAITING, registry)
        self._refused = measures.counter(REFUSED, registry)
        self._refused_told = 0
        self._pending = measures.gauge(PENDING, registry)
        self._outdated = measures.gauge(OUTDATED, registry)
        self._closed = measures.gauge(CLOSED, registry)
        self._waiting = measures.gauge(ALERTS_WAITING, registry)
        self._given_up = measures.gauge(ALERTS_GIVEN_UP, registry)
        self._difference = measures.gauge(DIFFERENCE, registry)
        self._alarm = measures.gauge(ALARM, registry)
        self._untold = measures.gauge(NOT_SHOWN, registry)
        self._runs = measures.gauge(RUNS, registry)
        self._exports = measures.gauge(EXPORT_ENTRIES, registry)
        self._export_age = measures.gauge(EXPORT_AGE, registry)
        self._export_answers = measures.counter(EXPORT_ANSWERS, registry)
        self._export_held_up = measures.counter(EXPORT_HELD_UP, registry)
        self._export_told: dict[tuple[str, str], int] = {}

    def took(self, receipt: Receipt) -> None:
        """Count the events of one post."""
        conflicts = sum(1 for entry in receipt.rejected if entry["reason"] == "conflict")
        numbers = {
            "accepted": receipt.accepted,
            "duplicate": receipt.duplicates,
            "conflict": conflicts,
            "rejected": len(receipt.rejected) - conflicts,
        }
        for result, number in numbers.items():
            self._events.labels(result).inc(number)

    async def text(self) -> bytes:
        """In Prometheus' text format, read from the database as of now."""
        self._queued.set(self._billing.ingest.waiting)
        self._outdated.set(len(self._billing.stale))
        refused = self._billing.ingest.refused
        self._refused.inc(refused - self._refused_told)
        self._refused_told = refused
        async with self._billing.database.reading() as connection:
            self._pending.set((await connection.execute(select(func.count()).select_from(pending))).scalar_one())
            last = (await read_closings(connection)).last
            self._closed.set(0 if last is None else last.year * 100 + last.month)
            waiting, given_up = await undelivered(connection)
            self._waiting.set(waiting)
            self._given_up.set(given_up)
            names = await tenants(connection)
            for found in await reconcile(connection, names[:TENANTS_MAX], self._billing.clock()):
                self._difference.labels(found["tenant"]).set(found["difference"])
                self._alarm.labels(found["tenant"]).set(found["alarm"])
            self._untold.set(max(0, len(names) - TENANTS_MAX))
            self._runs.set(await open_runs(connection, self._billing.clock()))
            if self._billing.exports is not None:
                await self._read_exports(connection, self._billing.exports)
        return generate_latest(self._registry)

    async def _read_exports(self, connection: AsyncConnection, exports: Exports) -> None:
        for (target, meter), (tally, waits_since) in (await exports.tallies(connection)).items():
            for state in ("waiting", "parked"):
                self._exports.labels(target, meter, state).set(tally.states[state].entries)
            waited = 0 if waits_since is None else max(0, self._billing.clock() - waits_since)
            self._export_age.labels(target, meter).set(waited / 1_000_000)
        for sender in exports.senders:
            held_up = self._export_held_up.labels(sender.destination.name)
            held_up.inc(sender.held_up - self._export_told.get((sender.destination.name, ""), 0))
            self._export_told[sender.destination.name, ""] = sender.held_up
            for result in get_args(Result):
                number, key = sender.results[result], (sender.destination.name, result)
                self._export_answers.labels(*key).inc(number - self._export_told.get(key, 0))
                self._export_told[key] = number

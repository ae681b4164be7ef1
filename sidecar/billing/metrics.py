"""`GET /metrics`: what this replica took, and where the database stands. Tenants are the only labels from outside,
and there are at most `TENANTS_MAX` of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from sidecar.billing.alerts import undelivered
from sidecar.billing.exports.service import Exports
from sidecar.billing.ledger.catalog import read_closings
from sidecar.billing.ledger.reconcile import reconcile, tenants
from sidecar.billing.ledger.tables import pending
from sidecar.billing.service import Billing, Receipt
from sidecar.billing.work.runs import open_runs

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TENANTS_MAX = 100


class Metrics:
    """The numbers of one replica's API and of its database."""

    def __init__(self, billing: Billing) -> None:
        self._billing = billing
        self._registry = CollectorRegistry()
        about = "Events posted, by what became of them"
        self._events = Counter("sidecar_billing_events", about, ["result"], registry=self._registry)
        for result in ("accepted", "duplicate", "conflict", "rejected"):
            self._events.labels(result)
        self._pending = self._gauge("pending_rows", "Events and decisions not summed up yet")
        self._queued = self._gauge("ingest_waiting_events", "Events that wait for a transaction")
        self._refused = self._gauge(
            "ingest_refused_events", "Events sent away because too many waited, since the start"
        )
        self._closed = self._gauge("closed_period", "The newest closed period, as 202611; 0: none")
        self._waiting = self._gauge("alerts_waiting", "Alerts about spending not delivered yet")
        self._given_up = self._gauge("alerts_given_up", "Alerts that the receiver never took")
        difference = "Sessions that sidecars state as finalized, less those that have arrived"
        self._difference = self._gauge("statement_difference", difference, "tenant")
        self._alarm = self._gauge("statement_alarm", "1 when events are missing for good", "tenant")
        untold = "Tenants whose statements are not shown here because there are too many"
        self._untold = self._gauge("tenants_not_shown", untold)

        self._runs = self._gauge("runs_open", "Backtests and other long work that waits or goes on, of all replicas")
        entries = "Entries for a meter of another billing system that are not acknowledged, by state"
        self._exports = self._gauge("export_entries", entries, "target", "meter", "state")
        age = "How long the oldest entry that is not parked has waited"
        self._export_age = self._gauge("export_oldest_waiting_seconds", age, "target", "meter")
        answers = "Answers of other billing systems to entries, by what they meant"
        labels = ["target", "result"]
        self._export_answers = Counter("sidecar_billing_export_answers", answers, labels, registry=self._registry)
        self._export_told: dict[tuple[str, str], int] = {}

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"sidecar_billing_{name}", meaning, labels, registry=self._registry)

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
        self._refused.set(self._billing.ingest.refused)
        async with self._billing.database.reading() as connection:
            self._pending.set((await connection.execute(select(func.count()).select_from(pending))).scalar_one())
            last = (await read_closings(connection)).last
            self._closed.set(0 if last is None else last.year * 100 + last.month)
            waiting, given_up = await undelivered(connection)
            self._waiting.set(waiting)
            self._given_up.set(given_up)
            names = await tenants(connection)
            for name in _bounded(names):
                found = await reconcile(connection, name, self._billing.clock())
                if found is not None:
                    self._difference.labels(name).set(found["difference"])
                    self._alarm.labels(name).set(found["alarm"])
            self._untold.set(max(0, len(names) - TENANTS_MAX))
            self._runs.set(await open_runs(connection, self._billing.clock()))
            if self._billing.exports is not None:
                await self._read_exports(connection, self._billing.exports)
        return generate_latest(self._registry)

    async def _read_exports(self, connection: AsyncConnection, exports: Exports) -> None:
        for (target, meter), tally in (await exports.open_tallies(connection)).items():
            for state in ("waiting", "parked"):
                self._exports.labels(target, meter, state).set(tally.entries[state])
            waited = 0 if tally.oldest_us is None else max(0, self._billing.clock() - tally.oldest_us)
            self._export_age.labels(target, meter).set(waited / 1_000_000)
        for sender in exports.senders:
            for result, number in sender.results.items():
                key = sender.destination.name, result
                self._export_answers.labels(*key).inc(number - self._export_told.get(key, 0))
                self._export_told[key] = number


def _bounded(names: Iterable[str]) -> list[str]:
    return sorted(names)[:TENANTS_MAX]

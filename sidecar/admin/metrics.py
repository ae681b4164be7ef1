"""`GET /metrics`: the proxy's counters from the status page, the observer's own, and what Redis keeps for the tenant.

Label values come from closed sets (reasons, states, APIs), never from traffic, so that no caller can grow a series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sidecar.wire.status import Slot, StatusPage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PROXY_COUNTERS: dict[Slot, tuple[str, str]] = {
    Slot.REQUESTS: ("requests", "Requests whose head was accepted"),
    Slot.BYTES_UP: ("bytes_up", "Bytes forwarded to upstreams"),
    Slot.BYTES_DOWN: ("bytes_down", "Bytes forwarded to clients"),
    Slot.UPSTREAM_CONNECTS: ("upstream_connects", "Connections opened to upstreams"),
    Slot.UPSTREAM_FAILURES: ("upstream_failures", "Upstream connections that could not be opened"),
    Slot.UPSTREAM_RETRIES: ("upstream_retries", "Requests sent again on a fresh connection"),
    Slot.BAD_REQUESTS: ("bad_requests", "Requests refused because they are not HTTP"),
    Slot.HEADS_TOO_LARGE: ("heads_too_large", "Requests refused because their head is too large (of bad_requests)"),
    Slot.CONNECTIONS_REFUSED: ("connections_refused", "Client connections over SIDECAR_MAX_CONNECTIONS"),
    Slot.HEADER_TIMEOUTS: ("header_timeouts", "Client connections that did not finish a request's head in time"),
    Slot.IDLE_TIMEOUTS: ("idle_timeouts", "Client connections closed because no request came in time"),
    Slot.UPSTREAM_WAITS: ("upstream_waits", "Requests that waited for one of SIDECAR_UPSTREAM_CONNECTIONS"),
    Slot.UPSTREAM_REFUSED: ("upstream_refused", "Requests that waited for an upstream connection in vain"),
    Slot.UPSTREAM_RETIRED: (
        "upstream_retired",
        "Upstream connections closed because DNS no longer lists their address",
    ),
    Slot.CERTIFICATE_RELOADS: ("certificate_reloads", "Changed certificate files that were taken up"),
    Slot.CERTIFICATE_FAILURES: ("certificate_failures", "Changed certificate files that could not be used"),
    Slot.ABORTED_BY_CLIENT: ("aborted_by_client", "Exchanges that the client left"),
    Slot.ABORTED_BY_ORIGIN: ("aborted_by_origin", "Exchanges that the origin cut"),
    Slot.BODIES_CUT: ("bodies_cut", "Copies cut at SIDECAR_CAPTURE_BODY_BYTES"),
    Slot.RECORDS_DROPPED: ("queue_records_dropped", "Copies that the full queue had no room for"),
    Slot.RECORD_BYTES_DROPPED: ("queue_bytes_dropped", "Bytes of these copies"),
    Slot.EXCHANGES_DROPPED: ("queue_exchanges_dropped", "Exchanges of which no copy could be kept"),
    Slot.SPILL_DROPPED: ("spill_dropped", "Long exchanges whose copy was dropped because the spill area was full"),
    Slot.QUEUE_CORRUPTIONS: ("queue_corruptions", "Times that the queue was found damaged"),
    Slot.QUEUE_BYTES_SKIPPED: ("queue_bytes_skipped", "Bytes of the queue passed over because of damage"),
    Slot.OBSERVER_STARTS: ("observer_starts", "Times that the observer was started"),
}
_GAUGES: dict[Slot, tuple[str, str]] = {
    Slot.CONNECTIONS_OPEN: ("connections_open", "Client connections open now"),
    Slot.EXCHANGES_OPEN: ("exchanges_open", "Exchanges under way now"),
    Slot.UPSTREAM_CONNECTIONS: ("upstream_connections", "Connections to upstreams open now, idle ones included"),
    Slot.JOURNAL_BACKLOG: ("journal_backlog_rows", "Journal rows not yet applied in Redis"),
    Slot.OUTBOX_LENGTH: ("outbox_length", "Outcomes not yet delivered"),
    Slot.QUEUE_ENDS_OWED: ("queue_ends_owed", "Ends of exchanges that wait for room in the queue"),
    Slot.SPILL_BYTES: ("spill_bytes", "Bytes of long exchanges kept outside the queue"),
}
_STATES: dict[Slot, str] = {
    Slot.REDIS_STATE: "redis",
    Slot.BILLING_STATE: "billing",
    Slot.PLAN_STATE: "plan",
    Slot.JOURNAL_STATE: "journal",
}
_RESPONSES = {
    Slot.RESPONSES_1XX: "1xx",
    Slot.RESPONSES_2XX: "2xx",
    Slot.RESPONSES_3XX: "3xx",
    Slot.RESPONSES_4XX: "4xx",
    Slot.RESPONSES_5XX: "5xx",
}


class Metrics:
    """One registry; `count(event)` is what the parts are handed to count by."""

    def __init__(self, status: StatusPage, store_counters: Callable[[], Mapping[str, int]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_StatusCollector(status, store_counters))
        self._events = Counter(
            "sidecar_events",
            "What happened in the observer, by kind",
            ["event"],
            registry=self._registry,
        )
        self._webhooks = Counter(
            "sidecar_webhooks",
            "Events told by webhooks, and deliveries refused, by what became of them",
            ["source", "result"],
            registry=self._registry,
        )

    def count(self, event: str, amount: int = 1) -> None:
        """Add to `sidecar_events_total{event="…"}`."""
        self._events.labels(event).inc(amount)

    def count_webhook(self, source: str, result: str, amount: int = 1) -> None:
        """Add to `sidecar_webhooks_total{source="…", result="…"}`; sources are those that have a secret."""
        self._webhooks.labels(source, result).inc(amount)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show `read()` as the gauge `sidecar_{name}`."""
        Gauge(f"sidecar_{name}", text, registry=self._registry).set_function(read)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)


class _StatusCollector(Collector):
    """Reads the slots that both processes write, and the counters that Redis keeps with the transitions."""

    def __init__(self, status: StatusPage, store_counters: Callable[[], Mapping[str, int]]) -> None:
        self._status = status
        self._store_counters = store_counters

    def collect(self) -> Iterator[Metric]:
        for slot, (name, text) in _PROXY_COUNTERS.items():
            yield CounterMetricFamily(f"sidecar_{name}", text, value=self._status.get(slot))
        for slot, (name, text) in _GAUGES.items():
            yield GaugeMetricFamily(f"sidecar_{name}", text, value=self._status.get(slot))
        responses = CounterMetricFamily("sidecar_responses", "Responses forwarded, by class", labels=["class"])
        for slot, name in _RESPONSES.items():
            responses.add_metric([name], self._status.get(slot))
        yield responses
        up = GaugeMetricFamily("sidecar_part_up", "1 when the part works", labels=["part"])
        for slot, name in _STATES.items():
            up.add_metric([name], 1 if self._status.get(slot) == 1 else 0)
        yield up
        yield from _wiring(self._store_counters())
        sessions = GaugeMetricFamily(
            "sidecar_tenant_count",
            "What Redis counts for the tenant over all replicas, as of the last heartbeat",
            labels=["what"],
        )
        for name, value in sorted(self._store_counters().items()):
            sessions.add_metric([name], value)
        yield sessions


def _wiring(counters: Mapping[str, int]) -> Iterator[Metric]:
    """Whether a deployment is wired right shows in the first minutes: ids and customers found, calls kept together."""
    exchanges, opened = counters.get("exchanges", 0), counters.get("opened", 0)
    if exchanges and opened:
        shares = {
            "with_id": "Share of the tenant's exchanges that brought a conversation id",
            "with_customer": "Share of the tenant's exchanges that named a customer",
        }
        for name, text in shares.items():
            share = counters.get(f"exchanges_{name}", 0) / exchanges
            yield GaugeMetricFamily(f"sidecar_exchanges_{name}_ratio", text, value=share)
        yield GaugeMetricFamily(
            "sidecar_exchanges_per_session", "Exchanges for each session of the tenant", value=exchanges / opened
        )

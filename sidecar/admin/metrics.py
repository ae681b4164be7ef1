"""`GET /metrics`: the proxy's counters from the status page, the observer's own, and what Redis keeps for the tenant.

`measured.py` says what each is called and means. Label values come from closed sets (reasons, states, routes), never
from traffic, so that no caller can grow a series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from sidecar import measures
from sidecar.admin import measured
from sidecar.admin.counted import EVENTS, OTHER, TENANT
from sidecar.measures import CONTENT_TYPE, Measure, gauge_family
from sidecar.observer.exchange import Exchange
from sidecar.wire.lag import read_lag
from sidecar.wire.status import StatusPage

__all__ = ["CONTENT_TYPE", "Metrics"]

Counters = Callable[[], Mapping[str, int] | None]


class Metrics:
    """One registry; `count(event)` is what the parts are handed to count by.

    `store_counters()` is what Redis last said, None before it has answered. `routes` are names by number; `webhooks`
    the sources that have a secret; `started_ms` Unix milliseconds.
    """

    def __init__(
        self,
        status: StatusPage,
        store_counters: Counters,
        *,
        tenant: str = "default",
        routes: Sequence[str] = (),
        webhooks: Iterable[str] = (),
        started_ms: int = 0,
    ) -> None:
        self._registry = registry = CollectorRegistry()
        self._tenant = tenant
        self._routes = tuple(routes)
        registry.register(_StatusCollector(status, store_counters, tenant))
        measures.gauge(measured.STARTED, registry).set(started_ms / 1000)
        self._events = measures.counter(measured.EVENTS_TOTAL, registry)
        self._webhooks = measures.counter(measured.WEBHOOKS, registry)
        for source, result in (*product(webhooks, measured.WEBHOOK_RESULTS), measured.UNKNOWN_SOURCE):
            self._webhooks.labels(source, result)
        self._plan = measures.info(measured.PLAN, registry)
        self._exchanges = measures.counter(measured.EXCHANGES, registry)
        self._added = measures.histogram(measured.ADDED_LATENCY, registry)
        self._first_byte = measures.histogram(measured.FIRST_BYTE, registry)
        self._duration = measures.histogram(measured.DURATION, registry)
        self.observed = measures.histogram(measured.OBSERVE, registry).observe  # told how many seconds it took
        self.redis_answered = measures.histogram(measured.REDIS_SECONDS, registry).observe
        self._posts = measures.histogram(measured.POST_SECONDS, registry)
        for route in self._routes:
            self._first_byte.labels(route)
            self._duration.labels(route)
            for name in (*measured.CLASSES, "none"):
                self._exchanges.labels(route, name)

    def plan(self, name: str, digest: str) -> None:
        """This plan is in force from now on: `sidecar_plan_info`."""
        self._plan.info({"name": name, "digest": digest})

    def count(self, event: str, amount: int = 1) -> None:
        """Add to `sidecar_events_total{event="…"}`."""
        self._events.labels(event if event in EVENTS else OTHER).inc(amount)

    def count_webhook(self, source: str, result: str, amount: int = 1) -> None:
        """Add to `sidecar_webhooks_total{source="…", result="…"}`; sources are those that have a secret."""
        self._webhooks.labels(source, result).inc(amount)

    def posted(self, result: str, seconds: float) -> None:
        """A post to the billing API took so long."""
        self._posts.labels(result).observe(seconds)

    def exchange(self, exchange: Exchange) -> None:
        """A finished exchange passed by."""
        raw = exchange.raw
        route = self._routes[raw.listener] if raw.listener < len(self._routes) else str(raw.listener)
        hundreds = exchange.status // 100
        self._exchanges.labels(route, f"{hundreds}xx" if 1 <= hundreds <= 5 else "none").inc()
        timing = raw.timing
        if timing is None or raw.flags:
            return
        self._first_byte.labels(route).observe((timing.first_answer_us - timing.asked_us) / 1_000_000)
        self._duration.labels(route).observe((timing.last_answer_us - raw.started_ms * 1000) / 1_000_000)
        # An answer that ends with its connection is done only when the origin closes that: nothing of ours. One that
        # came whole may be copied together with its end.
        framed = not {"content-length", "transfer-encoding"}.isdisjoint(exchange.response_headers)
        if framed and timing.ended_us > timing.last_answer_us:
            self._added.observe((timing.ended_us - timing.last_answer_us) / 1_000_000)

    def gauge(self, measure: Measure, read: Callable[[], float]) -> None:
        """Show what `read()` says when asked; of the tenant, where the measure is one of a tenant's."""
        made = measures.gauge(measure, self._registry)
        (made.labels(self._tenant) if measure.labels else made).set_function(read)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)


class _StatusCollector(Collector):
    """Reads the slots that both processes write, and the counters that Redis keeps with the transitions."""

    def __init__(self, status: StatusPage, store_counters: Counters, tenant: str) -> None:
        self._status = status
        self._store_counters = store_counters
        self._tenant = tenant

    def collect(self) -> Iterator[Metric]:
        get = self._status.get
        for slot, measure in measured.COUNTERS.items():
            counted = measures.counter_family(measure)
            counted.add_metric([], get(slot))
            yield counted
        for slot, measure in measured.GAUGES.items():
            yield _gauge(measure, {(self._tenant,) if measure.labels else (): get(slot)})
        responses = measures.counter_family(measured.RESPONSES)
        for name, slot in measured.RESPONSE_SLOTS.items():
            responses.add_metric([name], get(slot))
        yield responses
        yield _gauge(measured.PART_UP, {(name,): get(slot) == 1 for name, slot in measured.STATE_SLOTS.items()})
        lag = HistogramMetricFamily(measured.LOOP_LAG.name, measured.LOOP_LAG.meaning, labels=["process"])
        for name, slot in measured.LAG_SLOTS.items():
            buckets, total_seconds = read_lag(self._status, slot)
            lag.add_metric([name], buckets, total_seconds)
        yield lag
        counters = self._store_counters()
        if counters is not None:
            for measure, values in _of_tenant(counters):
                yield _gauge(measure, {(self._tenant, *labels): value for labels, value in values.items()})


def _gauge(measure: Measure, values: Mapping[tuple[str, ...], float]) -> Metric:
    family = gauge_family(measure)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _of_tenant(counters: Mapping[str, int]) -> Iterator[tuple[Measure, dict[tuple[str, ...], float]]]:
    """(measure, values by what stands beside the tenant). Every name is there at zero before it is first counted."""
    yield measured.TENANT_COUNT, {(name,): counters.get(name, 0) for name in sorted(TENANT)}
    names = {"OPEN": "open"} | {state: f"finalized:{state}" for state in measured.FINAL}
    yield measured.SESSIONS, {(state,): counters.get(name, 0) for state, name in names.items()}
    # Whether a deployment is wired right shows in the first minutes: ids and customers found, calls kept together.
    exchanges, opened = counters.get("exchanges", 0), counters.get("opened", 0)
    if exchanges and opened:
        yield measured.WITH_ID, {(): counters.get("exchanges_with_id", 0) / exchanges}
        yield measured.WITH_CUSTOMER, {(): counters.get("exchanges_with_customer", 0) / exchanges}
        yield measured.PER_SESSION, {(): exchanges / opened}

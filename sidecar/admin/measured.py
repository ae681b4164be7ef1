"""Every metric of a sidecar's `GET /metrics`: name, type, labels, meaning. docs/metrics.md is made from it."""

from __future__ import annotations

from typing import Final

from sidecar.admin.counted import EVENTS, TENANT
from sidecar.measures import Label, Measure, plain
from sidecar.wire.status import Slot

_QUICK_SECONDS: Final = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25)
_WORK_SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_ANSWER_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_CALL_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)

FINAL: Final = ("RESOLVED", "NOT_BILLABLE", "INCONCLUSIVE", "REVERSED")
CLASSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx")
_CLASS: Final = plain("class", *CLASSES)
_TENANT: Final = Label("tenant", bound="`SIDECAR_TENANT`")
_ROUTE: Final = Label("route", bound="the listen addresses of `SIDECAR_LISTEN` or `SIDECAR_ROUTES`")


def _counter(name: str, meaning: str, *labels: Label) -> Measure:
    return Measure(f"sidecar_{name}_total", "counter", meaning, labels)


def _gauge(name: str, meaning: str, *labels: Label) -> Measure:
    return Measure(f"sidecar_{name}", "gauge", meaning, labels)


def _histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: Label) -> Measure:
    return Measure(f"sidecar_{name}_seconds", "histogram", meaning, labels, buckets)


# What the proxy counts in shared memory, and what the observer shows there.
COUNTERS: Final[dict[Slot, Measure]] = {
    Slot.REQUESTS: _counter("requests", "Requests whose head was accepted"),
    Slot.BYTES_UP: _counter("bytes_up", "Bytes forwarded to upstreams"),
    Slot.BYTES_DOWN: _counter("bytes_down", "Bytes forwarded to clients"),
    Slot.UPSTREAM_CONNECTS: _counter("upstream_connects", "Connections opened to upstreams"),
    Slot.UPSTREAM_FAILURES: _counter("upstream_failures", "Upstream connections that could not be opened"),
    Slot.UPSTREAM_RETRIES: _counter("upstream_retries", "Requests sent again on a fresh connection"),
    Slot.UPSTREAM_WAITS: _counter("upstream_waits", "Requests that waited for one of SIDECAR_UPSTREAM_CONNECTIONS"),
    Slot.UPSTREAM_REFUSED: _counter("upstream_refused", "Requests that waited for an upstream connection in vain"),
    Slot.UPSTREAM_RETIRED: _counter(
        "upstream_retired", "Upstream connections closed because DNS no longer lists their address"
    ),
    Slot.BAD_REQUESTS: _counter("bad_requests", "Requests refused because they are not HTTP"),
    Slot.HEADS_TOO_LARGE: _counter(
        "heads_too_large", "Requests refused because their head is too large (of bad_requests)"
    ),
    Slot.CONNECTIONS_REFUSED: _counter("connections_refused", "Client connections over SIDECAR_MAX_CONNECTIONS"),
    Slot.HEADER_TIMEOUTS: _counter(
        "header_timeouts", "Client connections that did not finish a request's head in time"
    ),
    Slot.IDLE_TIMEOUTS: _counter("idle_timeouts", "Client connections closed because no request came in time"),
    Slot.CERTIFICATE_RELOADS: _counter("certificate_reloads", "Changed certificate files that were taken up"),
    Slot.CERTIFICATE_FAILURES: _counter("certificate_failures", "Changed certificate files that could not be used"),
    Slot.ABORTED_BY_CLIENT: _counter("aborted_by_client", "Exchanges that the client left"),
    Slot.ABORTED_BY_ORIGIN: _counter("aborted_by_origin", "Exchanges that the origin cut"),
    Slot.BODIES_CUT: _counter("bodies_cut", "Copies cut at SIDECAR_CAPTURE_BODY_BYTES"),
    Slot.RECORDS_DROPPED: _counter("queue_records_dropped", "Copies that the full queue had no room for"),
    Slot.RECORD_BYTES_DROPPED: _counter("queue_bytes_dropped", "Bytes of these copies"),
    Slot.EXCHANGES_DROPPED: _counter("queue_exchanges_dropped", "Exchanges of which no copy could be kept"),
    Slot.SPILL_DROPPED: _counter(
        "spill_dropped", "Long exchanges whose copy was dropped because the spill area was full"
    ),
    Slot.QUEUE_CORRUPTIONS: _counter("queue_corruptions", "Times that the queue was found damaged"),
    Slot.QUEUE_BYTES_SKIPPED: _counter("queue_bytes_skipped", "Bytes of the queue passed over because of damage"),
    Slot.OBSERVER_STARTS: _counter("observer_starts", "Times that the observer was started"),
}
GAUGES: Final[dict[Slot, Measure]] = {
    Slot.CONNECTIONS_OPEN: _gauge("connections_open", "Client connections open now"),
    Slot.EXCHANGES_OPEN: _gauge("exchanges_open", "Exchanges under way now"),
    Slot.UPSTREAM_CONNECTIONS: _gauge("upstream_connections", "Connections to upstreams open now, idle ones included"),
    Slot.QUEUE_ENDS_OWED: _gauge("queue_ends_owed", "Ends of exchanges that wait for room in the queue"),
    Slot.SPILL_BYTES: _gauge("spill_bytes", "Bytes of long exchanges kept outside the queue"),
    Slot.JOURNAL_BACKLOG: _gauge("journal_backlog_rows", "Journal rows not yet applied in Redis"),
    Slot.OUTBOX_LENGTH: _gauge("outbox_length", "The tenant's events not yet delivered, over all replicas", _TENANT),
}
RESPONSES: Final = _counter("responses", "Responses forwarded, by class", _CLASS)
RESPONSE_SLOTS: Final = {
    "1xx": Slot.RESPONSES_1XX,
    "2xx": Slot.RESPONSES_2XX,
    "3xx": Slot.RESPONSES_3XX,
    "4xx": Slot.RESPONSES_4XX,
    "5xx": Slot.RESPONSES_5XX,
}
PART_UP: Final = _gauge("part_up", "1 when the part works", plain("part", "redis", "billing", "plan", "journal"))
STATE_SLOTS: Final = {
    "redis": Slot.REDIS_STATE,
    "billing": Slot.BILLING_STATE,
    "plan": Slot.PLAN_STATE,
    "journal": Slot.JOURNAL_STATE,
}
LOOP_LAG: Final = _histogram(
    "loop_lag",
    "How late an event loop came to what was due, four times a second; to the millisecond",
    (),
    plain("process", "proxy", "observer"),
)
LAG_SLOTS: Final = {"proxy": Slot.LOOP_LAG_2MS, "observer": Slot.OBSERVER_LAG_2MS}

# What the observer sees of the traffic, by the times that the proxy stamped the copies with.
EXCHANGES: Final = _counter(
    "exchanges",
    "Exchanges that came out of the queue, by route and class of the response",
    _ROUTE,
    Label("class", dict.fromkeys(CLASSES, "") | {"none": "no response that can be read"}),
)
ADDED_LATENCY: Final = _histogram(
    "added_latency",
    "What the proxy's own work added on the way back, for answers that came in several pieces, as streams do: from the "
    "copy of the last piece until it was written and the exchange was done. What had to wait before that is in "
    "sidecar_loop_lag_seconds",
    _QUICK_SECONDS,
)
FIRST_BYTE: Final = _histogram(
    "first_byte",
    "From a request's last byte to its answer's first, at the proxy: the upstream's time, a new connection included",
    _ANSWER_SECONDS,
    _ROUTE,
)
DURATION: Final = _histogram(
    "exchange", "From a request's first byte to its answer's last, at the proxy", _ANSWER_SECONDS, _ROUTE
)
OBSERVE: Final = _histogram(
    "observe", "The observer's work on one exchange: decode it, find its conversation, judge it", _WORK_SECONDS
)

# The observer's own parts.
EVENTS_TOTAL: Final = _counter("events", "What happened in the observer, by kind", Label("event", EVENTS))
UNKNOWN_SOURCE: Final = ("unknown", "unknown_source")
WEBHOOK_RESULTS: Final = (
    "accepted",
    "duplicate",
    "unmapped",
    "malformed",
    "forged",
    "stale",
    "refused",
    "over",
)
WEBHOOKS: Final = _counter(
    "webhooks",
    "Events told by webhooks, and deliveries refused, by what became of them",
    Label("source", bound="the sources that have a `SIDECAR_WEBHOOK_SECRET_<SOURCE>`, and `unknown`"),
    plain("result", *WEBHOOK_RESULTS, UNKNOWN_SOURCE[1]),
)
PLAN: Final = Measure(
    "sidecar_plan_info",
    "gauge",
    "The plan in force, by name and digest of its file",
    (Label("name", bound="one at a time"), Label("digest", bound="one at a time")),
)
STARTED: Final = _gauge("observer_start_time_seconds", "When the observer was started, in Unix time")
QUEUE_USED: Final = _gauge("queue_used_bytes", "Bytes of the queue that are taken")
QUEUE_CAPACITY: Final = _gauge("queue_capacity_bytes", "Size of the queue")
OBSERVER_LAG: Final = _gauge(
    "observer_lag_seconds", "Age of the oldest bytes at the proxy that are not in the journal yet"
)
MARK_LAG: Final = _gauge("mark_lag_seconds", "How long deadlines wait for the slowest replica", _TENANT)
MARK_HELD: Final = _gauge("mark_held_here", "1 when this replica is the slowest")
JOURNAL_BYTES: Final = _gauge("journal_bytes", "What the journal's rows take on disk")
JOURNAL_BYTES_MAX: Final = _gauge("journal_max_bytes", "SIDECAR_JOURNAL_BYTES")
JOURNAL_AGE: Final = _gauge(
    "journal_backlog_seconds", "Age of the oldest fact in the journal that is not applied in Redis; 0: none waits"
)
OUTBOX_AGE: Final = _gauge(
    "outbox_oldest_seconds", "Age of the tenant's oldest event not yet delivered; 0: none waits", _TENANT
)
DEAD_LETTERS: Final = _gauge(
    "dead_letters", "The tenant's events that the billing API refused, waiting for a decision", _TENANT
)
REDIS_SECONDS: Final = _histogram("redis_beat", "Round trips of the heartbeat to Redis, once a second", _CALL_SECONDS)
POST_SECONDS: Final = _histogram(
    "delivery",
    "Posts to the billing API, by what came of them",
    _CALL_SECONDS,
    Label(
        "result",
        {
            "taken": "answered for good",
            "again": "to be sent again",
            "halved": "refused as a whole, to be sent in parts",
        },
    ),
)

# What Redis keeps for the tenant.
SESSIONS: Final = _gauge(
    "sessions",
    "The tenant's sessions by state, over all replicas, as of the last heartbeat",
    _TENANT,
    plain("state", "OPEN", *FINAL),
)
TENANT_COUNT: Final = _gauge(
    "tenant_count",
    "What Redis counts for the tenant over all replicas, as of the last heartbeat; not there until Redis has answered",
    _TENANT,
    Label("what", TENANT),
)
WITH_ID: Final = _gauge(
    "exchanges_with_id_ratio", "Share of all the tenant's exchanges that brought a conversation id", _TENANT
)
WITH_CUSTOMER: Final = _gauge(
    "exchanges_with_customer_ratio", "Share of all the tenant's exchanges that named a customer", _TENANT
)
PER_SESSION: Final = _gauge("exchanges_per_session", "Exchanges for each session of the tenant", _TENANT)

SECTIONS: Final[dict[str, tuple[Measure, ...]]] = {
    "Traffic, as the proxy counts it": (COUNTERS[Slot.REQUESTS], RESPONSES, *list(COUNTERS.values())[1:18]),
    "Traffic, as the observer reads it": (EXCHANGES, ADDED_LATENCY, FIRST_BYTE, DURATION, OBSERVE),
    "The proxy and the queue": (
        GAUGES[Slot.CONNECTIONS_OPEN],
        GAUGES[Slot.EXCHANGES_OPEN],
        GAUGES[Slot.UPSTREAM_CONNECTIONS],
        LOOP_LAG,
        QUEUE_USED,
        QUEUE_CAPACITY,
        GAUGES[Slot.QUEUE_ENDS_OWED],
        GAUGES[Slot.SPILL_BYTES],
        *list(COUNTERS.values())[18:],
    ),
    "The observer and its journal": (
        STARTED,
        EVENTS_TOTAL,
        WEBHOOKS,
        PLAN,
        PART_UP,
        OBSERVER_LAG,
        JOURNAL_BYTES,
        JOURNAL_BYTES_MAX,
        GAUGES[Slot.JOURNAL_BACKLOG],
        JOURNAL_AGE,
    ),
    "Sessions, Redis, delivery": (
        SESSIONS,
        WITH_ID,
        WITH_CUSTOMER,
        PER_SESSION,
        TENANT_COUNT,
        MARK_LAG,
        MARK_HELD,
        REDIS_SECONDS,
        GAUGES[Slot.OUTBOX_LENGTH],
        OUTBOX_AGE,
        DEAD_LETTERS,
        POST_SECONDS,
    ),
}

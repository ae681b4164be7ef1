"""How a deployment is wired, as Prometheus reads it."""

from __future__ import annotations

import pytest

from sidecar.admin.counted import TENANT
from sidecar.admin.metrics import Metrics
from sidecar.observer.exchange import Exchange
from sidecar.observer.reader import RawExchange, Timing
from sidecar.wire.records import EndFlag


class NoStatus:
    def get(self, _slot) -> int:
        return 0


def rendered(counters: dict[str, int] | None) -> dict[str, str]:
    metrics = Metrics(NoStatus(), lambda: counters, tenant="acme", webhooks=["zendesk"], started_ms=5_500)
    lines = metrics.render().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_shares_of_exchanges_with_an_id_and_a_customer() -> None:
    shares = {"exchanges_with_id": 10, "exchanges_with_customer": 30}
    found = rendered({"exchanges": 40, "opened": 8, "found_by:text": 3} | shares)
    assert found['sidecar_exchanges_with_id_ratio{tenant="acme"}'] == "0.25"
    assert found['sidecar_exchanges_with_customer_ratio{tenant="acme"}'] == "0.75"
    assert found['sidecar_exchanges_per_session{tenant="acme"}'] == "5.0"
    assert found['sidecar_tenant_count{tenant="acme",what="found_by:text"}'] == "3.0"


def test_nothing_is_claimed_before_there_is_traffic() -> None:
    assert not [name for name in rendered({"opened": 0}) if "ratio" in name or "per_session" in name]


def test_what_is_not_counted_yet_is_there_at_zero_so_that_the_first_is_an_increase() -> None:
    found = rendered({})
    for name in TENANT:
        assert found[f'sidecar_tenant_count{{tenant="acme",what="{name}"}}'] == "0.0"
    assert found['sidecar_sessions{state="OPEN",tenant="acme"}'] == "0.0"
    assert found['sidecar_webhooks_total{result="forged",source="zendesk"}'] == "0.0"
    assert found['sidecar_webhooks_total{result="unknown_source",source="unknown"}'] == "0.0"


def test_before_redis_has_answered_nothing_is_said_of_its_counts_for_they_are_not_zero() -> None:
    assert not [name for name in rendered(None) if name.startswith(("sidecar_tenant_count", "sidecar_sessions"))]


def test_when_it_was_started_tells_what_of_its_counters_is_recent() -> None:
    assert rendered({})["sidecar_observer_start_time_seconds"] == "5.5"


WHOLE = EndFlag(0)
TIMING = Timing(1_000_100, 1_250_100, 1_400_000, 1_400_030)


def seen(flags=WHOLE, *, timing=TIMING, head=b"Content-Length: 0\r\n"):
    raw = RawExchange(
        producer="q",
        sequence=2,
        first=1,
        listener=0,
        started_ms=1_000,
        at_ms=1_400,
        request=b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        response=b"HTTP/1.1 404 Not Found\r\n" + head + b"\r\n",
        flags=flags,
        finished=True,
        timing=timing,
    )
    metrics = Metrics(NoStatus(), dict, routes=["127.0.0.1:8080"])
    metrics.exchange(Exchange(raw))
    lines = metrics.render().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_an_exchange_is_counted_by_route_and_class_and_timed_by_the_proxys_clock() -> None:
    found = seen()
    assert found['sidecar_exchanges_total{class="4xx",route="127.0.0.1:8080"}'] == 1
    assert found['sidecar_exchanges_total{class="2xx",route="127.0.0.1:8080"}'] == 0
    assert found['sidecar_first_byte_seconds_sum{route="127.0.0.1:8080"}'] == 0.25
    assert found['sidecar_exchange_seconds_sum{route="127.0.0.1:8080"}'] == 0.4
    assert found["sidecar_added_latency_seconds_sum"] == pytest.approx(30e-6)


def test_what_was_cut_aborted_or_ended_by_its_connection_has_no_added_latency() -> None:
    assert seen(EndFlag.ABORTED_BY_CLIENT)["sidecar_added_latency_seconds_count"] == 0
    assert seen(EndFlag.BODY_CUT)['sidecar_exchange_seconds_count{route="127.0.0.1:8080"}'] == 0
    assert seen(timing=None)["sidecar_added_latency_seconds_count"] == 0
    together = Timing(1_000_100, 1_400_000, 1_400_000, 1_400_000)
    assert seen(timing=together)["sidecar_added_latency_seconds_count"] == 0
    until_closed = seen(head=b"")
    assert until_closed["sidecar_added_latency_seconds_count"] == 0
    assert until_closed['sidecar_first_byte_seconds_count{route="127.0.0.1:8080"}'] == 1


def test_an_event_of_another_release_grows_no_series() -> None:
    metrics = Metrics(NoStatus(), dict)
    metrics.count("what_nobody_knows", 3)
    assert 'sidecar_events_total{event="other"} 3.0' in metrics.render().decode()
    assert "what_nobody_knows" not in metrics.render().decode()

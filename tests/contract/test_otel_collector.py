"""Telemetry against a real collector that misbehaves: nobody waits for it, and what is lost is counted."""

import os
import time

import pytest
from collector import Collector, told
from exchanges import chat

from sidecar.delivery.event import Event
from sidecar.observer.apis.call import Call, Usage
from sidecar.otel import exporting
from sidecar.otel.exporting import WORDS_MAX
from sidecar.otel.telemetry import Telemetry

HELD_MAX = 50 + 10  # in the queue, and in the batch that is being sent


class Counts(dict):
    def __call__(self, name, n):
        self[name] = self.get(name, 0) + n


@pytest.fixture
def collector(monkeypatch):
    made = Collector()
    for name, said in {
        "OTEL_EXPORTER_OTLP_ENDPOINT": made.url,
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "10",
        "OTEL_BSP_MAX_QUEUE_SIZE": "50",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10",
        "OTEL_METRIC_EXPORT_INTERVAL": "50",
    }.items():
        monkeypatch.setenv(name, said)
    yield made
    made.close()


@pytest.fixture
def telemetry(collector, monkeypatch):
    """Makes one; none outlives its test, for its threads use chance, which is of the whole process."""
    made = []

    def make(counts, **more):
        for name, said in more.items():
            monkeypatch.setenv(name, said)
        made.append(Telemetry(os.environ, upstreams=[("api.openai.com", 443)], instance="i", count=counts))
        return made[-1]

    yield make
    for one in made:
        one.close(0.1)


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("mode", ["refuse", "away"])
def test_what_the_collector_does_not_take_is_counted(collector, telemetry, mode):
    collector.mode = mode
    counts = Counts()
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"} if mode == "away" else {}
    sending = telemetry(counts, **away)
    for _ in range(200):
        sending.exchange(chat(), Call("openai.chat", model="gpt-4o"), None)
    wait_until(lambda: counts.get("otel_failed") and counts.get("otel_metrics_failed"))
    assert counts.get("otel_dropped", 0) + counts["otel_failed"] >= 200 - HELD_MAX


def test_the_end_waits_for_no_collector_that_never_answers(collector, telemetry):
    collector.mode = "silent"
    counts = Counts()
    sending = telemetry(counts, OTEL_EXPORTER_OTLP_TIMEOUT="100000")
    for _ in range(200):
        sending.exchange(chat(), Call("openai.chat", model="gpt-4o"), None)
    assert counts["otel_dropped"] >= 200 - HELD_MAX
    wait_until(lambda: collector.raw)
    sending.close(0.2)
    assert collector.taken["traces"] == []


def test_a_defect_of_ours_is_counted_and_not_raised(collector, telemetry):
    counts = Counts()
    sending = telemetry(counts)
    sending.outcome(Event("out_1", b"{"))
    assert counts == {"otel_error": 1}
    sending.close(5)


def test_an_sdk_that_cannot_be_set_up_stops_telemetry_alone(collector, telemetry, monkeypatch):
    def refuses(_environ, _instance):
        raise ValueError("not this release")

    monkeypatch.setattr(exporting, "_resource", refuses)
    sending = telemetry(Counts())
    sending.exchange(chat(), None, None)
    sending.close(1)
    assert collector.raw == []


def test_no_caller_grows_the_attributes_of_metrics(collector, telemetry):
    counts = Counts()
    sending = telemetry(counts, OTEL_TRACES_EXPORTER="none")
    for number in range(WORDS_MAX + 50):
        call = Call("openai.chat", model=f"m-{number}", usage=Usage(input=1), completed=True, error=f"e{number}")
        sending.exchange(chat(f"m-{number}", status=400), call, None)
    sending.close(30)
    duration, points = collector.metrics()["gen_ai.client.operation.duration"]
    assert duration.unit == "s"
    models = {told(point.attributes)["gen_ai.request.model"] for point in points}
    errors = {told(point.attributes)["error.type"] for point in points}
    assert len(models) == len(errors) == WORDS_MAX + 1
    assert "_OTHER" in models & errors
    assert counts["otel_models_over"] == 50

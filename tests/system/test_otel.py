"""OpenTelemetry from a real sidecar to a collector: spans, metrics, outcomes; never content; never in the way."""

import subprocess
import sys

import httpx
import pytest
from collector import Collector, told
from harness import ROOT, ledger, wait_for
from scraping import scrape, value

CANARY = "canary-7f3a of the user"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.fixture
def collector():
    made = Collector()
    yield made
    made.close()


def exporting(sidecar, collector):
    running = sidecar(LOG_LEVEL="debug")
    running.env |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_MAX_QUEUE_SIZE": "5",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "5",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_BLRP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "300",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    running.start()
    running.wait_up()
    return running


def ask(running, conversation="c-1", text=CANARY, *, path="/v1/chat/completions", stream=False, model="gpt-4o"):
    body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    headers = {
        "authorization": f"Bearer {CANARY}",
        "x-session-id": conversation,
        "x-customer-id": "acme",
        "traceparent": f"00-{TRACE}-{PARENT}-01",
    }
    return httpx.post(running.url + path, json=body, headers=headers)


def resolve(running, conversation):
    alias = {"kind": "conversation", "value": conversation}
    body = {"id": f"s-{conversation}", "source": "crm", "alias": alias, "outcome": "RESOLVED", "reason": CANARY}
    running.signal_taken(**body)


def test_calls_are_spans_and_measured_and_outcomes_are_evaluations_without_a_word_of_content(sidecar, collector):
    running = exporting(sidecar, collector)
    usage = ask(running).raise_for_status().json()["usage"]
    ask(running, stream=True).raise_for_status()
    assert ask(running, path="/v1/nothing").status_code == 404
    wait_for("the session", lambda: running.session("conversation", "c-1"))
    resolve(running, "c-1")
    [row] = wait_for("the outcome", lambda: ledger(running.billing_url()))
    check_spans(running, collector, usage)
    check_metrics(collector, usage)
    check_evaluation(collector, row)
    check_that_a_silent_collector_holds_up_nothing(running, collector)
    assert not [body for body in collector.raw if CANARY.encode() in body]
    assert running.stop() == 0


def check_spans(running, collector, usage):
    spans = wait_for("three spans", lambda: len(found := collector.spans()) >= 3 and found)
    whole, streamed, other = sorted(spans, key=lambda found: found[2].start_time_unix_nano)
    resource, scope, span = whole
    assert told(resource.attributes)["service.name"] == "outcome-sidecar"
    assert told(resource.attributes)["deployment.environment.name"] == "test"
    assert scope.schema_url == "https://opentelemetry.io/schemas/1.41.1"
    assert (span.name, span.kind) == ("chat gpt-4o", span.SPAN_KIND_CLIENT)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 60e9
    said = told(span.attributes)
    assert said.pop("gen_ai.response.id").startswith("chatcmpl-")
    host, port = running.env["SIDECAR_UPSTREAM"].removeprefix("http://").split(":")
    assert said == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.conversation.id": "c-1",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": said["gen_ai.response.model"],
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
        "http.response.status_code": 200,
        "server.address": host,
        "server.port": int(port),
    } | {name: number for name, number in said.items() if name.startswith("gen_ai.usage.")}
    assert told(streamed[2].attributes)["gen_ai.request.stream"] is True
    assert told(streamed[2].attributes)["gen_ai.response.time_to_first_chunk"] > 0
    assert (other[2].name, other[2].status.code) == ("POST", other[2].status.STATUS_CODE_ERROR)
    assert told(other[2].attributes)["error.type"] == "404"


def check_metrics(collector, usage):
    def measured():
        found = collector.metrics()
        duration = found["gen_ai.client.operation.duration"][1]
        return found if sum(point.count for point in duration) == 2 else None

    metrics = wait_for("both calls' measurements", measured)
    tokens, points = metrics["gen_ai.client.token.usage"]
    assert tokens.unit == "{token}"
    by_type = {told(point.attributes)["gen_ai.token.type"]: point for point in points}
    assert by_type["input"].sum == 2 * usage["prompt_tokens"]
    assert list(by_type["output"].explicit_bounds)[:4] == [1, 4, 16, 64]
    [first_chunk] = metrics["gen_ai.client.operation.time_to_first_chunk"][1]
    assert first_chunk.count == 1


def check_evaluation(collector, row):
    [record] = wait_for("the evaluation", collector.records)
    evaluation = told(record.attributes)
    assert record.event_name == "gen_ai.evaluation.result"
    assert evaluation == {
        "gen_ai.evaluation.name": "session_outcome",
        "gen_ai.evaluation.score.label": "RESOLVED",
        "gen_ai.evaluation.score.value": 1.0,
        "gen_ai.evaluation.explanation": "signal:crm (signal)",
        "gen_ai.conversation.id": "c-1",
        "sidecar.session.id": row["data"]["session_id"],
        "sidecar.outcome.id": row["id"],
        "sidecar.outcome.name": "RESOLVED",
        "sidecar.outcome.revision": 0,
        "sidecar.outcome.billable": True,
        "sidecar.outcome.shadow": False,
    }


def check_that_a_silent_collector_holds_up_nothing(running, collector):
    collector.mode = "silent"
    before = value(scrape(running.admin), "sidecar_observe_seconds_count")
    for number in range(12):
        ask(running, f"s-{number}").raise_for_status()

    def observed():
        found = scrape(running.admin)
        dropped = value(found, "sidecar_events_total", event="otel_dropped")
        return dropped and value(found, "sidecar_observe_seconds_count") == before + 12

    wait_for("all exchanges to be observed, and what is lost to be counted", observed)
    resolve(running, "s-7")
    wait_for("an outcome all the same", lambda: len(ledger(running.billing_url())) == 2)


def test_what_exports_is_not_loaded_without_an_endpoint():
    """redis-py loads a part of an SDK that is installed, whoever asks; the exporters and protobuf are ours to spare."""
    script = "import sys, sidecar.app; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "sidecar.otel.telemetry" in loaded.split()
    found = [
        name for name in loaded.split() if name.startswith(("opentelemetry.exporter", "google", "sidecar.otel.exp"))
    ]
    assert found == []


def test_without_the_extra_the_sidecar_says_so_and_goes_on():
    """An import hook hides the SDK, as if the extra was not installed."""
    script = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'opentelemetry':
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
import sidecar.app
from sidecar.otel.telemetry import Telemetry
from sidecar.otel.wanted import problems
environ = {'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://127.0.0.1:9'}
telemetry = Telemetry(environ, upstreams=[], instance='i', count=print)
telemetry.exchange(None, None, None)
telemetry.outcome(None)
telemetry.close(1)
print(*problems(environ))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pip install 'outcome-sidecar[otel]'" in done.stdout

"""The standard variables, and what cannot be given of what they ask for."""

import pytest

from sidecar.otel import wanted as module
from sidecar.otel.wanted import number, problems, wanted

URL = "http://collector:4318"


@pytest.mark.parametrize(
    ("environ", "signals"),
    [
        ({}, set()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, set()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, {"traces", "metrics", "logs"}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_METRICS_EXPORTER": "none"}, {"traces", "logs"}),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": URL + "/v1/logs"}, {"logs"}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_SDK_DISABLED": "TRUE"}, set()),
    ],
)
def test_a_signal_is_sent_when_it_has_an_endpoint_and_is_not_switched_off(environ, signals):
    assert wanted(environ) == signals


def test_an_endpoint_without_the_extra_is_said_with_what_to_do(monkeypatch):
    assert problems({"OTEL_EXPORTER_OTLP_ENDPOINT": URL}) == []
    monkeypatch.setattr(module, "_NEEDED", ("opentelemetry_is_not.there",))
    [said] = problems({"OTEL_EXPORTER_OTLP_ENDPOINT": URL})
    assert "pip install 'outcome-sidecar[otel]'" in said
    assert problems({}) == []


def test_another_protocol_is_said_once_and_the_signals_own_variable_comes_first():
    grpc = {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    [said] = problems(grpc)
    assert said.startswith("OTEL_EXPORTER_OTLP_PROTOCOL=grpc is not spoken")
    own = {f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL": "http/protobuf" for signal in ("TRACES", "METRICS", "LOGS")}
    assert problems(grpc | own) == []


def test_a_number_that_is_none_is_the_default():
    assert number({"A": "7"}, "A", 3) == 7
    for text in ("", "0", "-1", "1e3", "٣"):
        assert number({"A": text}, "A", 3) == 3

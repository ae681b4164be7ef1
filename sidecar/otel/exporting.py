"""The SDK's side: operations become spans and measurements, outcomes become events; each leaves by its own outlet.

Nothing here waits, or raises, towards the observer. The collector's answers are waited for in threads of their own,
which at the observer's priority take nothing from the proxy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sidecar import __version__
from sidecar.otel import conventions as names
from sidecar.otel.evaluations import Evaluation
from sidecar.otel.operations import Operation
from sidecar.otel.outlet import Outlet
from sidecar.otel.wanted import number

SCOPE: Final = "sidecar"
WORDS_MAX: Final = 100  # different models, and kinds of errors, as attributes of metrics
QUEUE_MAX, BATCH_MAX, DELAY_MS = 2048, 512, 5000  # the specification's defaults

Count = Callable[[str, int], None]
log = structlog.get_logger(__name__)


class Exporting:
    """Sends `signals` (traces, metrics, logs) to where the standard variables in `environ` say.

    `instance` names this process among others. What becomes of it is told to `count`.
    """

    def __init__(self, environ: Mapping[str, str], signals: frozenset[str], *, instance: str, count: Count) -> None:
        # What the exporters say of a collector that is away is said once, by the outlets.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._count = count
        self._resource = _resource(environ, instance)
        self._outlets: list[Outlet] = []
        self._shutdowns: list[Callable[[], Any]] = []
        self._parents = TraceContextTextMapPropagator()
        self._models, self._errors = _Words(WORDS_MAX), _Words(WORDS_MAX)
        self._tracer = self._traces(environ) if "traces" in signals else None
        self._logger = self._logs(environ) if "logs" in signals else None
        self._meter_provider = self._metrics() if "metrics" in signals else None
        if self._meter_provider is not None:
            meter = self._meter_provider.get_meter(SCOPE, __version__, names.SCHEMA_URL)
            seconds = {"unit": "s", "explicit_bucket_boundaries_advisory": names.SECONDS_BOUNDS}
            self._tokens = meter.create_histogram(
                names.TOKEN_USAGE, unit="{token}", explicit_bucket_boundaries_advisory=names.TOKEN_BOUNDS
            )
            self._duration = meter.create_histogram(names.OPERATION_DURATION, **seconds)  # type: ignore[arg-type]
            self._first_chunk = meter.create_histogram(names.TIME_TO_FIRST_CHUNK, **seconds)  # type: ignore[arg-type]

    def operation(self, operation: Operation) -> None:
        """A span, and its measurements."""
        if self._tracer is not None:
            span = self._tracer.start_span(
                operation.name,
                context=self._parents.extract(operation.headers),
                kind=SpanKind.CLIENT,
                attributes=operation.attributes,
                start_time=operation.start_ns,
            )
            if operation.error:
                span.set_status(StatusCode.ERROR)
            span.end(operation.end_ns)
        if self._meter_provider is not None and operation.measured is not None:
            attributes = self._bounded(operation)
            self._duration.record(operation.seconds, attributes)
            if operation.seconds_to_first_chunk is not None:
                self._first_chunk.record(operation.seconds_to_first_chunk, attributes)
            attributes.pop(names.ERROR_TYPE, None)
            for kind, tokens in operation.tokens.items():
                self._tokens.record(tokens, attributes | {names.TOKEN_TYPE: kind})

    def evaluation(self, evaluation: Evaluation) -> None:
        """An event."""
        if self._logger is not None:
            self._logger.emit(
                LogRecord(
                    timestamp=evaluation.time_ns,
                    severity_number=SeverityNumber.INFO,
                    attributes=evaluation.attributes,
                    event_name=names.EVALUATION_RESULT,
                )
            )

    def close(self, seconds: float) -> None:
        """Send what is there within about `seconds`."""
        share = seconds / max(1, len(self._outlets) + 1)
        for outlet in self._outlets:
            outlet.close(share)
        if self._meter_provider is not None:
            self._meter_provider.shutdown(timeout_millis=share * 1000)
        for shut_down in self._shutdowns:
            shut_down()

    def _bounded(self, operation: Operation) -> dict[str, str | int]:
        """The measured attributes, words from the traffic only as far as there are few."""
        attributes: dict[str, str | int] = {}
        for name, value in (operation.measured or {}).items():
            words = self._errors if name == names.ERROR_TYPE else self._models
            free = name in {names.OPERATION_NAME, names.PROVIDER_NAME}
            attributes[name] = value if free or words.take(value) else names.OTHER
        if names.OTHER in (attributes.get(names.REQUEST_MODEL), attributes.get(names.RESPONSE_MODEL)):
            self._count("otel_models_over", 1)
        for name in (names.SERVER_ADDRESS, names.SERVER_PORT):
            if isinstance(found := operation.attributes.get(name), str | int):
                attributes[name] = found
        return attributes

    def _traces(self, environ: Mapping[str, str]) -> Any:
        exporter = OTLPSpanExporter()

        def send(spans: Sequence[ReadableSpan]) -> bool:
            return exporter.export(spans) is SpanExportResult.SUCCESS

        outlet = self._outlet("traces", send, environ, "OTEL_BSP")
        self._shutdowns.append(exporter.shutdown)
        provider = TracerProvider(resource=self._resource, shutdown_on_exit=False)
        provider.add_span_processor(_Spans(outlet))
        return provider.get_tracer(SCOPE, __version__, schema_url=names.SCHEMA_URL)

    def _logs(self, environ: Mapping[str, str]) -> Any:
        exporter = OTLPLogExporter()

        def send(records: Sequence[ReadableLogRecord]) -> bool:
            return exporter.export(records) is LogRecordExportResult.SUCCESS

        outlet = self._outlet("logs", send, environ, "OTEL_BLRP")
        self._shutdowns.append(exporter.shutdown)
        provider = LoggerProvider(resource=self._resource, shutdown_on_exit=False)
        provider.add_log_record_processor(_Records(outlet))
        return provider.get_logger(SCOPE, __version__, schema_url=names.SCHEMA_URL)

    def _metrics(self) -> MeterProvider:
        reader = PeriodicExportingMetricReader(_CountedMetrics(self._count))
        return MeterProvider([reader], resource=self._resource, shutdown_on_exit=False)

    def _outlet(
        self, name: str, send: Callable[[Sequence[Any]], bool], environ: Mapping[str, str], prefix: str
    ) -> Outlet:
        outlet = Outlet(
            name,
            send,
            count=self._count,
            size_max=number(environ, f"{prefix}_MAX_QUEUE_SIZE", QUEUE_MAX),
            batch_max=number(environ, f"{prefix}_MAX_EXPORT_BATCH_SIZE", BATCH_MAX),
            delay_seconds=number(environ, f"{prefix}_SCHEDULE_DELAY", DELAY_MS) / 1000,
        )
        self._outlets.append(outlet)
        return outlet


class _Words:
    """The first so many different words."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def take(self, word: str) -> bool:
        """Whether this is one of them."""
        if word not in self._known and len(self._known) < self._most:
            self._known.add(word)
        return word in self._known


class _Spans(SpanProcessor):
    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self._outlet.put(span)


class _Records(LogRecordProcessor):
    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        self._outlet.put(
            ReadableLogRecord(
                log_record.log_record,
                log_record.resource or Resource.get_empty(),
                log_record.instrumentation_scope,
                log_record.limits,
            )
        )

    def shutdown(self) -> None:
        """The outlet is closed by its owner."""

    def force_flush(self, timeout_millis: int = 0) -> bool:  # noqa: ARG002  the interface's
        """Likewise."""
        return True


class _CountedMetrics(OTLPMetricExporter):
    def __init__(self, count: Count) -> None:
        super().__init__()
        self._told = count

    def export(self, metrics_data: MetricsData, *arguments: Any, **more: Any) -> MetricExportResult:
        result = super().export(metrics_data, *arguments, **more)
        if result is not MetricExportResult.SUCCESS:
            self._told("otel_metrics_failed", 1)
        return result


def _resource(environ: Mapping[str, str], instance: str) -> Resource:
    """Who speaks; what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say comes first."""
    said = Resource.create().attributes
    own: dict[str, str] = {"service.version": __version__, "service.instance.id": instance}
    if not environ.get("OTEL_SERVICE_NAME") and "service.name=" not in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        own["service.name"] = "outcome-sidecar"
    return Resource.create({name: value for name, value in own.items() if name == "service.name" or name not in said})

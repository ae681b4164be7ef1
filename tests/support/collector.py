"""An OpenTelemetry collector of our own: takes OTLP over HTTP as protobuf, and keeps what it was sent."""

import asyncio
import gzip
import threading

from aiohttp import web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

REQUESTS = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}


class Collector:
    """Listens on a free port of 127.0.0.1 in a thread. `mode`: ok, refuse (answers 503), silent (never answers)."""

    def __init__(self):
        self.mode = "ok"
        self.raw = []  # every body, whatever it was answered
        self.taken = {name: [] for name in REQUESTS}
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    def close(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def spans(self):
        return [
            (resource.resource, scope, span)
            for request in self.taken["traces"]
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def records(self):
        return [
            record
            for request in self.taken["logs"]
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def metrics(self):
        """{name: its newest data points}."""
        return {
            metric.name: (metric, list(metric.histogram.data_points))
            for request in self.taken["metrics"]
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self):
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/{signal}", self._take)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _take(self, request):
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        assert request.content_type == "application/x-protobuf"
        self.raw.append(body)
        if self.mode == "silent":
            await self._stop.wait()
        if self.mode == "refuse":
            return web.Response(status=503)
        self.taken[request.match_info["signal"]].append(REQUESTS[request.match_info["signal"]].FromString(body))
        return web.Response(content_type="application/x-protobuf")


def told(attributes):
    """Protobuf's key-values as a dict."""
    return {each.key: _value(each.value) for each in attributes}


def _value(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)

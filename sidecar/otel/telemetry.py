"""What the observer tells OpenTelemetry by: does nothing unless an endpoint is set, and never fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import structlog

from sidecar.delivery.event import Event
from sidecar.observer.apis.call import Call
from sidecar.observer.exchange import Exchange
from sidecar.otel.evaluations import evaluation_of
from sidecar.otel.operations import operation_of
from sidecar.otel.wanted import installed, wanted

if TYPE_CHECKING:
    from sidecar.otel.exporting import Exporting

log = structlog.get_logger(__name__)


class Telemetry:
    """`upstreams` are (host, port) by route; `instance` names this process; `count(name, n)` what becomes of it."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        upstreams: Sequence[tuple[str, int]],
        instance: str,
        count: Callable[[str, int], None],
    ) -> None:
        self._upstreams = upstreams
        self._count = count
        self._out = _start(environ, instance, count)

    def exchange(self, exchange: Exchange, call: Call | None, conversation: str | None) -> None:
        """A finished exchange: a span and its measurements."""
        if self._out is None:
            return
        listener = exchange.raw.listener
        host, port = self._upstreams[listener] if listener < len(self._upstreams) else ("", 0)
        try:
            self._out.operation(operation_of(exchange, call, conversation, host=host, port=port))
        except Exception:
            log.exception("otel_failed", sequence=exchange.raw.sequence)
            self._count("otel_error", 1)

    def outcome(self, event: Event) -> None:
        """An event that the billing API has: an evaluation."""
        if self._out is None:
            return
        try:
            evaluation = evaluation_of(event)
            if evaluation is not None:
                self._out.evaluation(evaluation)
        except Exception:
            log.exception("otel_failed", outcome_id=event.id)
            self._count("otel_error", 1)

    def close(self, seconds: float) -> None:
        """Send what is there within `seconds`; blocks. Whatever hangs in the SDK is left behind in its thread."""
        if self._out is not None:
            closing = threading.Thread(target=self._out.close, args=(seconds,), name="otel-close", daemon=True)
            closing.start()
            closing.join(seconds)


def _start(environ: Mapping[str, str], instance: str, count: Callable[[str, int], None]) -> Exporting | None:
    signals = wanted(environ)
    if not signals or not installed():  # `sidecar run` has said so
        return None
    from sidecar.otel.exporting import Exporting  # noqa: PLC0415  the SDK is an extra, and takes its time

    try:
        out = Exporting(environ, signals, instance=instance, count=count)
    except Exception:
        # A wrong variable of a foreign library's must not stop what bills.
        log.exception("otel_not_started")
        return None
    log.info("otel_started", signals=sorted(signals))
    return out

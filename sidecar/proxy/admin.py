"""A connection at the admin address: relayed to the observer, which may be away, with bounds in time for both sides.

Towards an origin a request has no timeout and a lost connection is passed on as direct. Here whoever asks is told with
a 503 that the observer does not answer, and a body that does not come is not waited for: the address has room for few
connections, and health and metrics need them.
"""

from __future__ import annotations

from sidecar.proxy.exchange import Exchange
from sidecar.proxy.limits import Awaits
from sidecar.proxy.relay import ClientConnection
from sidecar.proxy.upstream import UpstreamError
from sidecar.wire.framing import Event, Head
from sidecar.wire.records import EndFlag


class AdminConnection(ClientConnection):
    """One connection from a client on the admin address."""

    __slots__ = ()

    def awaits(self) -> Awaits:
        """What this connection waits for, for the sweep (`limits`)."""
        exchange = self._exchange
        if exchange is None:
            return super().awaits()
        if not exchange.request_done:
            return Awaits.BODY
        return Awaits.NOTHING if exchange.response_begun else Awaits.ANSWER

    def expire(self, awaits: Awaits, seconds: float) -> None:
        """The client has had its time, or the observer."""
        exchange = self._exchange
        if exchange is None:
            super().expire(awaits, seconds)
        elif exchange.response_begun:  # and the rest of the request has not come
            self._end_exchange(EndFlag.ABORTED_BY_CLIENT)
            self._drop_upstream()
            if exchange.response_done:
                self._close()
            else:
                self._transport.abort()
        elif awaits is Awaits.BODY and not (self._upstream is not None and self._upstream.full):
            exchange.flags |= EndFlag.ABORTED_BY_CLIENT.value
            self._fail(exchange, 408, "body-timeout", f"the request's body was not complete within {seconds:g} s")
        else:
            self._no_answer(exchange, f"the observer does not answer (waited {seconds:g} s)")

    def connect_failed(self, error: UpstreamError) -> None:
        """There is no observer."""
        super().connect_failed(UpstreamError(503, "no-answer", f"the observer does not answer ({error.reason})"))

    def response_events(self, events: list[Event]) -> None:
        """Parts of the response arrived; 100 Continue is no answer yet.

        Seen here and not in `_answered`, which runs for every exchange and is called faster while it has one version.
        """
        super().response_events(events)
        heads = [event for event in events if isinstance(event, Head)]
        if heads and heads[-1].status < 200 and self._exchange is not None:
            self._exchange.response_begun = False

    def _cut_off(self, exchange: Exchange, *, broken: bool) -> None:
        if exchange.response_begun:
            super()._cut_off(exchange, broken=broken)
        else:
            self._no_answer(exchange, "the observer went away before it answered")

    def _no_answer(self, exchange: Exchange, reason: str) -> None:
        self._fail(exchange, 503, "no-answer", reason)

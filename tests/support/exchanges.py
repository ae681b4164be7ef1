"""Exchanges as the observer reads them, made of bytes."""

import json

from sidecar.observer.exchange import Exchange
from sidecar.observer.reader import RawExchange
from sidecar.wire.records import EndFlag


def chat(model="gpt-4o", *, status=200):
    """A chat completion's exchange; its answer is empty."""
    body = json.dumps({"model": model}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    return Exchange(
        RawExchange(
            producer="q",
            sequence=2,
            first=1,
            listener=0,
            started_ms=1_000,
            at_ms=1_400,
            request=head.encode() + body,
            response=f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode(),
            flags=EndFlag(0),
            finished=True,
        )
    )

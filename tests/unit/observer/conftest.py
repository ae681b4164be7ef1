"""Scripted bytes: exchanges as a client and an origin would have put them on the wire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from sidecar.observer.exchange import Exchange
from sidecar.observer.journal import Journal
from sidecar.observer.observe import Observing
from sidecar.observer.reader import RawExchange
from sidecar.policy.loading import builtin_plan
from sidecar.wire.records import EndFlag

STARTED_MS = 1_795_348_800_000


class Wire:
    """Builds messages, raw exchanges and what the observer makes of them."""

    def message(self, start_line: str, body: Any = b"", headers: dict[str, str] | None = None) -> bytes:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        kind = {} if isinstance(body, bytes) else {"Content-Type": "application/json"}
        fields = {"Host": "api.example.com"} | kind | {"Content-Length": str(len(raw))} | (headers or {})
        return f"{start_line}\r\n".encode() + self.head(fields) + raw

    def head(self, fields: dict[str, str]) -> bytes:
        return "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode() + b"\r\n"

    def post(self, path: str, body: Any = b"", headers: dict[str, str] | None = None) -> bytes:
        return self.message(f"POST {path} HTTP/1.1", body, headers)

    def get(self, path: str, headers: dict[str, str] | None = None) -> bytes:
        return self.message(f"GET {path} HTTP/1.1", b"", headers)

    def ok(self, body: Any = b"", headers: dict[str, str] | None = None) -> bytes:
        return self.message("HTTP/1.1 200 OK", body, headers)

    def answer(self, status: int, body: Any = b"", headers: dict[str, str] | None = None) -> bytes:
        return self.message(f"HTTP/1.1 {status} Said", body, headers)

    def stream(self, body: bytes, *, whole: bool = True) -> bytes:
        """A response streamed in chunks of one event each, as servers do; without its last chunk if not whole."""
        events = [event + b"\n\n" for event in body.split(b"\n\n") if event]
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in events)
        fields = {"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked"}
        return b"HTTP/1.1 200 OK\r\n" + self.head(fields) + chunks + (b"0\r\n\r\n" if whole else b"")

    def raw(self, request: bytes, response: bytes = b"", flags: int = 0, **changes: Any) -> RawExchange:
        fields: dict[str, Any] = {
            "producer": "q1",
            "sequence": 12,
            "first": 7,
            "listener": 0,
            "started_ms": STARTED_MS,
            "at_ms": STARTED_MS + 900,
            "request": request,
            "response": response,
            "flags": EndFlag(flags),
            "finished": True,
        }
        return RawExchange(**(fields | changes))

    def exchange(self, request: bytes, response: bytes = b"", flags: int = 0, **changes: Any) -> Exchange:
        listener = changes.pop("listener_name", "")
        return Exchange(self.raw(request, response, flags, **changes), listener=listener)


class Observer:
    """`Observing` with what it counted."""

    def __init__(self, session_keys: str = "", customer: str = "header:x-customer-id", **settings: Any) -> None:
        self.counts: Counter[str] = Counter()
        shadow = settings.pop("shadow", False)
        key = settings.pop("hash_key", b"k" * 32)
        self.plan = settings.pop("plan", None) or builtin_plan()
        self.observing = Observing(
            "acme", key, session_keys, customer, shadow, lambda name: self.counts.update([name]), **settings
        )

    def observe(self, raw: RawExchange) -> Any:
        return self.observing.observe(raw, self.plan)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def observer() -> Observer:
    return Observer()


@pytest.fixture
def make_observer() -> type[Observer]:
    return Observer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite3"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    opened = Journal(path, hours=1, bytes_max=16 << 20)
    yield opened
    opened.close()

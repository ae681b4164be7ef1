"""Exchanges built to exhaust whoever reads them: deep, dense, endless, broken. Each at the size that hurts most.

The sizes are those that pass the proxy by default: a body of at most 8 MiB is copied (`SIDECAR_CAPTURE_BODY_BYTES`).
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import brotli
import orjson
import zstandard

from sidecar.observer.observe import Observing
from sidecar.observer.reader import RawExchange
from sidecar.policy.loading import builtin_plan
from sidecar.wire.records import EndFlag

BODY_BYTES = 8 << 20

_CHAT = "/v1/chat/completions"
_ANSWER = orjson.dumps({
    "id": "chatcmpl-1",
    "model": "gpt-4o",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
})  # fmt: skip


@dataclass(frozen=True)
class Blast:
    """What reading one of them took, and what came of it; `complete` is what the session is told."""

    name: str
    body_bytes: int
    cpu_ms: float
    peak_mib: float
    api: str | None
    complete: bool
    counts: dict[str, int]


def blasts() -> Iterator[Blast]:
    """Each read in a process of its own, whose memory is then its own too."""
    plan = builtin_plan()
    for name, make in bombs():
        raw = make()
        reading, writing = os.pipe()
        if os.fork() == 0:
            counts: Counter[str] = Counter()
            count = partial(_count, counts)
            observing = Observing("acme", b"k" * 32, "", "header:x-customer-id", False, count)
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
            before, began = _memory_mib("VmRSS"), time.process_time()
            seen = observing.observe(raw, plan)
            cpu_ms = 1_000 * (time.process_time() - began)
            peak_mib = _memory_mib("VmHWM") - before
            size = max(len(raw.request), len(raw.response))
            api, complete = (seen.api, seen.complete) if seen else (None, False)
            os.write(writing, json.dumps([size, cpu_ms, peak_mib, api, complete, counts]).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            told = pipe.read()
        os.wait()
        yield Blast(name, *json.loads(told))


def _count(counts: Counter[str], event: str) -> None:
    counts[event] += 1


def _memory_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def bombs() -> Iterator[tuple[str, Callable[[], RawExchange]]]:
    """Name, and the exchange, made when it is asked for."""
    yield from _requests()
    yield from _coded()
    yield from _streams()


def _requests() -> Iterator[tuple[str, Callable[[], RawExchange]]]:
    yield "JSON 100,000 deep", lambda: sent(b"[" * 100_000 + b"]" * 100_000)
    yield "tool arguments 1,000 deep", lambda: said(_calling(b'{"a":' * 1_000 + b"1" + b"}" * 1_000))
    yield "tool arguments 100,000 deep in a string", lambda: said(_calling(orjson.dumps("[" * 100_000)))
    yield "million empty lists", lambda: sent(_fill(b'{"messages":[', b"[],", b"0]}"))
    yield "million objects of one field", lambda: sent(_fill(b'{"messages":[', b'{"":""},', b"0]}"))
    yield "object of a million fields", lambda: sent(_fields())
    yield "million messages", lambda: sent(_fill(b'{"messages":[', b'{"role":"user"},', b"0]}"))
    yield "one message of half a million parts", lambda: sent(
        _fill(b'{"messages":[{"role":"user","content":[', b'{"type":"image"},', b"0]}]}")
    )  # fmt: skip
    yield "number of eight million digits", lambda: sent(b'{"n":' + b"9" * (BODY_BYTES - 10) + b"}")
    yield "fraction of eight million digits", lambda: sent(b'{"n":1.' + b"9" * (BODY_BYTES - 20) + b"e-9}")
    yield "NaN after eight million bytes", lambda: sent(_fill(b'{"messages":[{"content":"', b"a", b'"}],"n":NaN}'))
    yield "bad UTF-8", lambda: sent(_fill(b'{"messages":[{"role":"user","content":"', b"\xff", b'"}]}'))
    yield "half characters", lambda: sent(_fill(b'{"messages":[{"role":"user","content":"', b"\\ud800", b'"}]}'))

    yield "broken JSON", lambda: sent(_fill(b'{"messages":[{"role":"user","content":"', b"a", b'"}'))


def _coded() -> Iterator[tuple[str, Callable[[], RawExchange]]]:
    zeros = bytes(64 << 20)
    yield "gzip of 64 MiB", lambda: sent(gzip.compress(zeros, 9), "gzip")
    yield "gzip in gzip in gzip", lambda: sent(gzip.compress(gzip.compress(gzip.compress(zeros))), "gzip, gzip, gzip")
    yield "br of 64 MiB", lambda: sent(brotli.compress(zeros, quality=5), "br")
    yield "zstd of 64 MiB", lambda: sent(zstandard.compress(zeros), "zstd")
    yield "gzip of 64 MiB of text", lambda: sent(gzip.compress(_words(), 1), "gzip")
    yield "gzip of many members", lambda: sent(_repeat(gzip.compress(b"", 1)), "gzip")
    yield "zstd of many frames", lambda: sent(_repeat(zstandard.compress(b"")), "zstd")
    yield "codings without end", lambda: sent(b"x" * 100, ", ".join(["gzip"] * 1_000))
    yield "gzip of a million empty lists", lambda: sent(
        gzip.compress(b'{"messages":[' + b"[]," * (10 << 20) + b"0]}"), "gzip"
    )  # fmt: skip


def _streams() -> Iterator[tuple[str, Callable[[], RawExchange]]]:
    sse = "text/event-stream"
    yield "SSE without a line end", lambda: said(_fill(b"data: ", b"x", b""), sse)
    yield (
        "SSE without a line end, gzip",
        lambda: said(gzip.compress(b"data: " + _words()[: 9 << 20], 1), sse, coding="gzip"),
    )
    yield "SSE without an event's end", lambda: said(_repeat(b"data: x\n"), sse)
    yield "SSE of empty lines", lambda: said(_repeat(b"\n"), sse)
    yield "SSE of empty events", lambda: said(_repeat(b"data:\n\n"), sse)
    token = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n'
    yield "SSE of events for ever", lambda: said(_repeat(token % b"a"), sse, flags=EndFlag.BODY_CUT)
    yield "SSE of half characters", lambda: said(_repeat(b'data: "\\ud800"\n\n'), sse)
    yield "SSE of a choice each", lambda: said(
        b"".join(b'data: {"choices":[{"index":%d,"delta":{"content":"a"}}]}\n\n' % n for n in range(150_000)), sse
    )  # fmt: skip
    yield (
        "SSE of a tool call each",
        lambda: said(
            b"".join(
                b'data: {"choices":[{"delta":{"tool_calls":[{"index":%d,"function":{"name":"f"}}]}}]}\n\n' % n
                for n in range(90_000)
            ),
            sse,
        ),
    )
    gemini = "/v1/models/gemini:streamGenerateContent"
    yield "growing array of nothing", lambda: said(_repeat(b"[{},"), "application/json", gemini)
    yield "growing array of one string", lambda: said(_fill(b'[{"a":"', b"\\\\", b""), "application/json", gemini)
    yield "growing array of empty parts", lambda: said(
        _fill(b'[{"candidates":[{"content":{"parts":[', b"{},", b"{}]}}]}]"), "application/json", gemini
    )  # fmt: skip
    yield "NDJSON of numbers", lambda: said(_repeat(b"1\n"), "application/x-ndjson", "/api/chat", b'{"model":"m"}')
    aws = "application/vnd.amazon.eventstream"
    path = "/model/anthropic.claude-v4/invoke-with-response-stream"
    yield "AWS messages of nothing", lambda: said(_repeat(_aws(b"")), aws, path)
    inner = b'{"a":[' + b"[]," * (1 << 20) + b"0]}"
    chunk = orjson.dumps({"bytes": base64.b64encode(inner).decode()})
    yield "AWS chunks of a million empty lists", lambda: said(_repeat(_aws(chunk), 8 << 20), aws, path)


def sent(body: bytes, coding: str = "") -> RawExchange:
    """A request to a chat model with this body, answered."""
    head = f"POST {_CHAT} HTTP/1.1\r\nHost: h\r\nX-Session-Id: c-42-4242\r\nContent-Type: application/json\r\n"
    head += f"Content-Encoding: {coding}\r\n" if coding else ""
    told = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(_ANSWER)}\r\n\r\n"
    return _raw(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, told.encode() + _ANSWER)


def said(
    body: bytes,
    media_type: str = "application/json",
    path: str = _CHAT,
    asked: bytes = b"{}",
    *,
    coding: str = "identity",
    flags: int = 0,
) -> RawExchange:
    """An answer with this body."""
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nX-Session-Id: c-42-4242\r\nContent-Length: {len(asked)}\r\n\r\n"
    told = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Encoding: {coding}\r\n"
    return _raw(head.encode() + asked, f"{told}Content-Length: {len(body)}\r\n\r\n".encode() + body, flags)


def _raw(request: bytes, response: bytes, flags: int = 0) -> RawExchange:
    return RawExchange("bombs", 1, 1, 0, 1_000, 2_000, request, response, EndFlag(flags), finished=True)


def _fill(before: bytes, piece: bytes, after: bytes) -> bytes:
    return before + piece * ((BODY_BYTES - len(before) - len(after)) // len(piece)) + after


def _repeat(piece: bytes, size: int = BODY_BYTES) -> bytes:
    return piece * max(1, size // len(piece))


def _fields() -> bytes:
    return b"{" + b",".join(b'"%x":0' % number for number in range(1_000_001)) + b"}"


def _words() -> bytes:
    """64 MiB that gzip makes small, but not so small that this alone tells."""
    return b"".join(b"%06d, the order has not arrived. " % number for number in range(2_000_000))


def _calling(arguments: bytes) -> bytes:
    call = b'{"id":"call_9hRzq4WkqXvS2Yd8","type":"function","function":{"name":"f","arguments":%s}}' % arguments
    message = b'{"role":"assistant","tool_calls":[%s]}' % call
    return b'{"id":"c","choices":[{"index":0,"finish_reason":"tool_calls","message":%s}]}' % message


def _aws(payload: bytes) -> bytes:
    """One message of an AWS event stream, of type `chunk`."""
    headers = b"".join(
        bytes([len(name)]) + name + b"\x07" + struct.pack(">H", len(value)) + value
        for name, value in ((b":event-type", b"chunk"), (b":message-type", b"event"))
    )
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    raw = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return raw + struct.pack(">I", zlib.crc32(raw))


if __name__ == "__main__":
    for blast in blasts():
        sys.stdout.write(json.dumps(asdict(blast)) + "\n")

"""What every API's tests need: hostile exchanges of an API, made of the API's own words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.observer.apis.call import Api, Call
from sidecar.observer.exchange import Exchange
from sidecar.observer.reader import RawExchange
from sidecar.wire.records import EndFlag


@pytest.fixture
def survives() -> Callable[..., None]:
    """Reads exchanges of wrong types and of garbage; `words` are the API's keys and values, `frames` how it streams."""

    def check(api: Api, path: str, words: str, frames: dict[str, Callable[[bytes], bytes]]) -> None:
        known = st.sampled_from(words.split())
        leaf = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | known
        body = st.recursive(
            leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(known, inner, max_size=5), max_leaves=20
        )

        @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(body, st.lists(body, min_size=1, max_size=4), st.sampled_from([*frames.items()]), st.integers(0, 60))
        def run(asked: Any, said: list[Any], frame: tuple[str, Callable[[bytes], bytes]], cut: int) -> None:
            sent = orjson.dumps(asked)
            media_type, wrap = frame
            answer = b"".join(wrap(orjson.dumps(each)) for each in said)
            answer = answer[: len(answer) - cut] if cut % 2 else answer
            head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(sent)}\r\n\r\n".encode()
            told = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {len(answer)}\r\n\r\n".encode()
            raw = RawExchange("q", 1, 1, 0, 0, 0, head + sent, told + answer, EndFlag(0), finished=True)
            exchange = Exchange(raw)
            api.recognises(exchange)
            call = api.read(exchange)
            assert isinstance(call, Call)
            assert all(isinstance(each.name, str) and isinstance(each.id, str) for each in call.tool_calls)
            assert all(isinstance(turn.text, str) and isinstance(turn.role, str) for turn in call.turns)
            assert isinstance(call.reply, str)

        run()

    return check


@pytest.fixture
def sse() -> Callable[[bytes], bytes]:
    return lambda data: b"data: " + data + b"\n\n"

"""The scanner's promise that splitting changes nothing, over mixtures of good and bad streams."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scanning import CHUNKED, GET, POST, SMALL, events_of, scan

from sidecar.wire.framing import End, Head, Role

# Pieces of good and bad streams; what matters is that any split of any mixture gives the same events.
FRAGMENTS = [
    GET, POST, CHUNKED, b"\r\n", b"GET / HTTP/1.1\r\n", b"Host: a\r\n", b"Transfer-Encoding: chunked\r\n\r\n", b"\n",
    b"\r", b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\nT: 1\r\n\r\n", b"Content-Length: 3\r\n\r\n", b"abc", b"\0", b";x=y",
    b" ", b"PRI * HTTP/2.0\r\n\r\n", b"A" * 40, b"X: y\r\n" * 3, b"\r\n\r\n",
]  # fmt: skip
RESPONSES = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 No\r\n\r\n",
    b"HTTP/1.1 101 S\r\n\r\n",
    b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n",
    b"\r\n", b"x", b"\n",
    b"HTTP/1.0 200\r\nConnection: keep-alive\r\n\r\n",
]  # fmt: skip
CUTS = st.lists(st.integers(0, 400), max_size=12)


class TestSplitting:
    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=8).map(b"".join), CUTS)
    def test_requests(self, data, cuts):
        whole = scan(data, limits=SMALL, eof=True)
        assert scan(data, cuts, limits=SMALL, eof=True) == whole
        assert scan(data, list(range(len(data))), limits=SMALL, eof=True) == whole

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(st.sampled_from(RESPONSES), min_size=1, max_size=8).map(b"".join),
        CUTS,
        st.lists(st.sampled_from([b"GET", b"HEAD", b"CONNECT"]), min_size=4, max_size=4),
        st.booleans(),
    )
    def test_responses(self, data, cuts, methods, upgrade):
        options = {"role": Role.RESPONSE, "methods": methods, "upgrade": upgrade, "limits": SMALL, "eof": True}
        whole = scan(data, **options)
        assert scan(data, cuts, **options) == whole
        assert scan(data, list(range(len(data))), **options) == whole

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=60), CUTS)
    def test_noise(self, data, cuts):
        assert scan(data, cuts, eof=True) == scan(data, eof=True)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.sampled_from([GET, POST, CHUNKED]), min_size=1, max_size=5), CUTS)
    def test_what_is_legal_comes_out_as_it_went_in(self, messages, cuts):
        events = events_of(b"".join(messages), cuts)
        raw = b"".join(
            event.raw if isinstance(event, Head) else event for event in events if not isinstance(event, End)
        )
        assert raw == b"".join(messages)
        assert sum(isinstance(event, End) for event in events) == len(messages)

    @pytest.mark.parametrize("byte", [0, 1, 9, 10, 11, 13, 31, 32, 58, 59, 127, 128, 255])
    def test_one_wrong_byte_anywhere(self, byte):
        """What a beginning is refused for and what a whole head is refused for are the same things."""
        for data, options in (
            (b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", {}),
            (b"HTTP/1.1 200 OK\r\nServer: a\r\nContent-Length: 1\r\n\r\nx", {"role": Role.RESPONSE}),
        ):
            for at in range(len(data)):
                wrong = data[:at] + bytes([byte]) + data[at + 1 :]
                assert scan(wrong, **options) == scan(wrong, list(range(len(data))), **options), wrong

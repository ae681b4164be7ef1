"""The relay on transports in memory, fed its bytes in every way: the split never decides, and all three readers agree.

The three: the proxy's scanner, which frames; `wire.message`, by which the observer reads the copies; and llhttp as a
stream parser, which stands for an origin's own and shares no code with the other two.
"""

from __future__ import annotations

import asyncio
import itertools

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from smuggling import BAD_BODIES, BAD_HEADS, GOOD

from sidecar.proxy.config import Upstream
from sidecar.proxy.relay import ClientConnection
from sidecar.proxy.route import Route
from sidecar.proxy.upstream import Origin, UpstreamConnection
from sidecar.wire.framing import FramingError
from sidecar.wire.message import read_request
from sidecar.wire.records import EndFlag
from sidecar.wire.status import STATUS_BYTES, Slot, StatusPage

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class MemoryTransport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return False

    def set_write_buffer_limits(self, high=None, low=None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class WarmOrigin(Origin):
    """Every request gets a connection of its own at once, so that it is seen what each one sent."""

    def __init__(self, status) -> None:
        super().__init__(Upstream.parse("http://origin.example"), status)
        self.made: list[UpstreamConnection] = []

    def take(self, preferred):
        connection = UpstreamConnection(self)
        connection.connection_made(MemoryTransport())
        self.made.append(connection)
        return connection

    def release(self, connection) -> None:
        connection.client = None


class Copy:
    def __init__(self) -> None:
        self.requested = bytearray()
        self.flags: int | None = None

    def request(self, data: bytes, head_bytes: int = 0) -> None:
        self.requested += data

    def response(self, data: bytes, head_bytes: int = 0) -> None:
        pass

    def last(self, data: bytes, head_bytes: int, flags: int) -> None:
        self.flags = int(flags)

    def end(self, flags: int = 0) -> None:
        if self.flags is None:
            self.flags = int(flags)


class LlhttpOrigin:
    """llhttp over the bytes of one upstream connection: how many requests are complete, their bodies, and errors."""

    def __init__(self, data: bytes) -> None:
        self.bodies: list[bytes] = []
        self.error = False
        self._body = b""
        try:
            httptools.HttpRequestParser(self).feed_data(data)
        except httptools.HttpParserError:
            self.error = True

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.bodies.append(self._body)


class Play:
    """A client connection that is fed `pieces`; each request is answered as soon as llhttp finds it whole."""

    def __init__(self) -> None:
        self.status = StatusPage(bytearray(STATUS_BYTES))
        self.origin = WarmOrigin(self.status)
        self.copies: list[Copy] = []
        self.client = MemoryTransport()
        route = Route(0, self.origin, self.status, authority=None, copy=self._copy)
        self.connection = ClientConnection(route, asyncio.get_running_loop())
        self.connection.connection_made(self.client)

    def _copy(self, _listener: int) -> Copy:
        self.copies.append(Copy())
        return self.copies[-1]

    async def feed(self, *pieces: bytes) -> Play:
        for piece in pieces:
            if self.client.closed:
                break
            self.connection.data_received(piece)
            await self._answer()
        self.connection.connection_lost(None)
        return self

    async def _answer(self) -> None:
        answered = -1
        while answered != len(self.origin.made):
            answered = len(self.origin.made)
            for upstream in self.origin.made:
                if upstream.client is not None and LlhttpOrigin(bytes(upstream.transport.written)).bodies:
                    upstream.data_received(OK)
            await asyncio.sleep(0)  # a pipeline goes on in the loop's next round

    @property
    def verdict(self) -> tuple[object, ...]:
        """All that may not depend on the split."""
        return (
            [(bytes(copy.requested), copy.flags) for copy in self.copies],
            [bytes(upstream.transport.written) for upstream in self.origin.made],
            [line for line in bytes(self.client.written).split(b"\r\n") if line.startswith(b"HTTP/1.1 ")],
            self.status.get(Slot.BAD_REQUESTS),
        )


def splits(data: bytes):
    """Whole, byte by byte, and in two at every place."""
    yield (data,)
    yield tuple(data[at : at + 1] for at in range(len(data)))
    for at in range(1, len(data)):
        yield data[:at], data[at:]


@pytest.mark.parametrize("name", BAD_HEADS)
async def test_a_bad_head_is_refused_however_it_is_split(name):
    for pieces in splits(BAD_HEADS[name]):
        play = await Play().feed(*pieces)
        copies, sent, answers, bad = play.verdict
        assert (copies, sent, bad) == ([], [], 1), pieces
        assert [line.split(b" ")[1] for line in answers] in ([b"400"], [b"501"]), pieces


@pytest.mark.parametrize("name", BAD_BODIES)
async def test_a_bad_body_is_refused_at_the_same_byte_however_it_is_split(name):
    data = BAD_BODIES[name]
    for pieces in splits(data):
        play = await Play().feed(*pieces)
        copies, sent, answers, bad = play.verdict
        ((copied, flags),) = copies
        assert (flags, bad, len(answers)) == (EndFlag.ABORTED_BY_CLIENT | EndFlag.ANSWERED_BY_SIDECAR, 1, 1), pieces
        assert data.startswith(copied)
        assert sent == [copied]
        assert not LlhttpOrigin(copied).bodies, pieces
        assert not read_request(copied).complete
        assert play.origin.made[0].transport.closed


@pytest.mark.parametrize("name", GOOD)
async def test_a_legal_oddity_passes_however_it_is_split(name):
    for pieces in splits(GOOD[name]):
        play = await Play().feed(*pieces)
        assert play.verdict == ([(GOOD[name], 0)], [GOOD[name]], [b"HTTP/1.1 200 OK"], 0), pieces


_NAMES = st.sampled_from([b"Host", b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"X"])
_VALUES = st.sampled_from(
    [b" 5", b" 0", b"\t5 ", b" chunked", b" gzip, chunked", b" Chunked", b" keep-alive", b" a", b"", b" 5, 5", b" a\r"]
)
_FIELD = st.builds(lambda name, value: name + b":" + value + b"\r\n", _NAMES, _VALUES)
_BODY = st.sampled_from(
    [
        b"",
        b"hello",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"0\r\n\r\n",
        b"1;e\r\nx\r\n00\r\nT: 1\r\n\r\n",
        b"5\r\nhell",
        b"3\nabc\r\n",
    ]
)
_METHOD = st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT"])
_REQUEST = st.builds(
    lambda method, fields, body: method + b" / HTTP/1.1\r\n" + b"".join(fields) + b"\r\n" + body,
    _METHOD,
    st.lists(_FIELD, max_size=3),
    _BODY,
)
_LEGAL = st.builds(
    lambda method, framed: method + b" / HTTP/1.1\r\nHost: a\r\n" + framed,
    _METHOD,
    st.sampled_from(
        [
            b"\r\n",
            b"Content-Length: 5\r\n\r\nhello",
            b"transfer-encoding: gzip,\tchunked\r\n\r\n1;e\r\nx\r\n00\r\nT: 1\r\n\r\n",
            b"Transfer-Encoding: chunked\r\nX:\r\n\r\n5\r\nhello\r\n00a\r\n0123456789\r\n0\r\n\r\n",
        ]
    ),
)
_NOISE = st.tuples(st.integers(0, 400), st.sampled_from([b"\r", b"\n", b"\0", b" ", b":", b"0", b"\r\n", b"\x80"]))


@st.composite
def _streams(draw) -> tuple[bytes, ...]:
    """Pipelined requests, legal or nearly so, perhaps with a byte changed, cut into pieces."""
    data = b"".join(draw(st.lists(st.one_of(_LEGAL, _LEGAL, _REQUEST), min_size=1, max_size=4)))
    if draw(st.booleans()):
        at, noise = draw(_NOISE)
        at %= len(data)
        data = data[:at] + noise + data[at + len(noise) :]
    cuts = sorted({0, len(data), *draw(st.lists(st.integers(0, len(data)), max_size=6))})
    return tuple(data[start:end] for start, end in itertools.pairwise(cuts))


@settings(max_examples=200, deadline=None)
@example((b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;\r\r\nx\r\n0\r\n\r\n",))
@given(_streams())
def test_proxy_decoder_and_origin_agree_where_messages_end(pieces):
    async def play() -> None:
        whole, cut = await Play().feed(b"".join(pieces)), await Play().feed(*pieces)
        assert whole.verdict == cut.verdict
        data = b"".join(pieces)
        at = 0
        for copy, upstream in zip(cut.copies, cut.origin.made, strict=True):
            copied = bytes(copy.requested)
            assert data.startswith(copied, at)  # nothing between two requests, nothing twice
            at += len(copied)
            assert bytes(upstream.transport.written) == copied
            message, origin = read_request(copied), LlhttpOrigin(copied)
            assert not origin.error
            assert message.complete == (len(origin.bodies) == 1) == (copy.flags == 0)
            if message.complete:
                assert message.body == origin.bodies[0]

    asyncio.run(play())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.sampled_from([b"GET / HTTP/1.1\r\nHost: a\r\n", b"POST / HTTP/1.1\r\n", b""]))
def test_the_decoder_reads_what_the_proxy_lets_pass_and_nothing_else(tail, start):
    async def play() -> None:
        data = start + tail + b"\r\n\r\n"
        played = await Play().feed(data)
        try:
            read_request(data)
        except FramingError:
            assert played.status.get(Slot.BAD_REQUESTS) == 1
        else:
            assert played.copies or played.status.get(Slot.BAD_REQUESTS) == 0

    asyncio.run(play())

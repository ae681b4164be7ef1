"""The scanner, as dialogues of bytes and events; and its promise that splitting changes nothing."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.wire.framing import DEFAULT_LIMITS, END, Body, End, FramingError, Head, Limits, Role, Scanner

GET = b"GET /a?b=c HTTP/1.1\r\nHost: example.org\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nhOsT:  example.org \r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b'5;name="v"\r\nhello\r\n00A\r\n0123\r\n6789\r\n0\r\nX-Trailer: t\r\n\r\n'
)


def scan(data: bytes, pieces: list[int] | None = None, **options) -> list[object]:
    """All events of a stream of requests (or responses: `method`), cut at the offsets in `pieces`."""
    return outline(events_of(data, pieces or [], **options))


def events_of(data, cuts, *, role=Role.REQUEST, methods=(b"GET",), upgrade=False, eof=False, limits=DEFAULT_LIMITS):
    scanner = Scanner(role, limits)
    waiting = list(methods)
    events: list[object] = []

    def go_on() -> None:
        while scanner.stopped and (role is Role.REQUEST or waiting):
            more = scanner.resume(waiting.pop(0) if role is Role.RESPONSE else b"", upgrade=upgrade)
            events.extend(more)
            if not more:
                break

    go_on()
    offsets = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in itertools.pairwise(offsets):
        events.extend(scanner.feed(data[start:end]))
        go_on()
    if eof:
        events.extend(scanner.eof())
    return events


def outline(events) -> list[object]:
    """Events with neighbouring pieces of body joined and heads by their essence, so that they can be compared."""
    out: list[object] = []
    for event in events:
        if isinstance(event, bytes):
            if out and isinstance(out[-1], bytes):
                out[-1] += event
            else:
                out.append(event)
        elif isinstance(event, Head):
            out.append((event.raw, event.body, event.length, event.keep_alive, event.upgrade))
        elif isinstance(event, End):
            out.append("END")
        else:
            out.append((event.code, event.status))
    return [event for event in out if event != b""]


def head_of(data: bytes, **options) -> Head:
    head = events_of(data, [], **options)[0]
    assert isinstance(head, Head), head
    return head


def response_head(data: bytes, method: bytes = b"GET", *, upgrade: bool = False) -> Head:
    return head_of(data, role=Role.RESPONSE, methods=(method,), upgrade=upgrade)


def error_of(data: bytes, **options) -> tuple[str, int]:
    error = events_of(data, [], **options)[-1]
    assert isinstance(error, FramingError), error
    return error.code, error.status


class TestRequests:
    def test_without_body(self):
        head = head_of(GET)
        assert (head.method, head.target, head.body) == (b"GET", b"/a?b=c", Body.NONE)
        assert scan(GET)[-1] == "END"

    def test_counted_body(self):
        assert scan(POST)[1:] == [b"hello", "END"]

    def test_chunked_body_is_given_as_sent(self):
        body = CHUNKED.partition(b"\r\n\r\n")[2]
        assert scan(CHUNKED)[1:] == [body, "END"]

    def test_host_span_is_the_value_without_its_whitespace(self):
        head = head_of(POST)
        assert head.host_span is not None
        start, end = head.host_span
        assert head.raw[start:end] == b"example.org"

    def test_an_empty_host_has_an_empty_span(self):
        head = head_of(b"GET / HTTP/1.1\r\nHost:\r\n\r\n")
        assert head.host_span == (21, 21)

    def test_a_whole_body_piece_is_the_object_that_was_received(self):
        scanner = Scanner(Role.REQUEST)
        scanner.feed(b"POST / HTTP/1.1\r\nContent-Length: 12\r\n\r\n")
        first, last = b"1234567", b"89012"
        assert scanner.feed(first)[0] is first
        assert scanner.feed(last)[0] is last

    def test_a_whole_chunked_piece_is_the_object_that_was_received(self):
        scanner = Scanner(Role.REQUEST)
        scanner.feed(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"3\r\nabc\r\n10\r\n0123"
        assert scanner.feed(piece)[0] is piece

    def test_pipelined_requests_wait_for_resume(self):
        scanner = Scanner(Role.REQUEST)
        assert outline(scanner.feed(GET + POST + GET))[-1] == "END"
        assert scanner.stopped
        assert scanner.pending == len(POST + GET)
        assert outline(scanner.resume())[1:] == [b"hello", "END"]
        assert outline(scanner.resume())[-1] == "END"
        assert scanner.resume() == []

    def test_empty_lines_before_a_request_are_kept_with_it(self):
        assert head_of(b"\r\n\r\n" + GET).raw == b"\r\n\r\n" + GET

    def test_empty_lines_before_a_request_are_few(self):
        assert scan(b"\r\n" * 8 + GET)[-1] == "END"
        for cuts in ([], range(1000)):
            assert scan(b"\r\n" * 9 + GET, list(cuts)) == [("bad-head", 400)]
        assert scan(b"\r\n" * 10) == [("bad-head", 400)]

    def test_a_head_is_begun_by_more_than_empty_lines(self):
        scanner = Scanner(Role.REQUEST)
        scanner.feed(b"\r\n\r")
        assert (scanner.pending, scanner.begun) == (3, False)
        scanner.feed(b"\nG")
        assert scanner.begun

    def test_http_2_by_prior_knowledge_is_opaque(self):
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        assert head_of(preface).body is Body.OPAQUE
        assert scan(preface + b"\0\0\0\4\0")[1:] == [b"SM\r\n\r\n\0\0\0\4\0"]

    def test_the_preface_counts_only_at_the_start(self):
        assert error_of(GET + b"PRI * HTTP/2.0\r\n\r\n") == ("bad-head", 400)

    @pytest.mark.parametrize(
        ("line", "keep_alive"),
        [
            (b"HTTP/1.1\r\n", True),
            (b"HTTP/1.1\r\nConnection: close\r\n", False),
            (b"HTTP/1.1\r\nConnection: x, Close\r\n", False),
            (b"HTTP/1.1\r\nConnection: closed\r\n", True),
            (b"HTTP/1.0\r\n", False),
            (b"HTTP/1.0\r\nConnection: keep-alive\r\n", True),
            (b"HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n", False),
        ],
    )
    def test_persistence(self, line, keep_alive):
        assert head_of(b"GET / " + line + b"\r\n").keep_alive is keep_alive

    def test_upgrade_needs_both_fields(self):
        assert head_of(b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").upgrade
        assert not head_of(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n").upgrade

    def test_a_post_that_offers_h2c_keeps_its_body(self):
        data = b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi"
        assert scan(data)[1:] == [b"hi", "END"]

    @pytest.mark.parametrize("target", [b"*", b"http://other.example/x", b"/\x80"])
    def test_targets_of_every_form(self, target):
        method = b"OPTIONS" if target == b"*" else b"GET"
        events = events_of(method + b" " + target + b" HTTP/1.1\r\n\r\n", [])
        assert isinstance(events[0], Head) != (target == b"/\x80")  # llhttp wants targets in ASCII


class TestResponses:
    @pytest.mark.parametrize(
        ("head", "method", "body"),
        [
            (b"200 OK\r\nContent-Length: 3\r\n", b"GET", Body.COUNTED),
            (b"200 OK\r\nContent-Length: 0\r\n", b"GET", Body.NONE),
            (b"200 OK\r\nTransfer-Encoding: chunked\r\n", b"GET", Body.CHUNKED),
            (b"200 OK\r\nTransfer-Encoding: gzip, chunked\r\n", b"GET", Body.CHUNKED),
            (b"200 OK\r\nTransfer-Encoding: gzip\r\n", b"GET", Body.UNTIL_CLOSE),
            (b"200 OK\r\n", b"GET", Body.UNTIL_CLOSE),
            (b"200 OK\r\nContent-Length: 3\r\n", b"HEAD", Body.NONE),
            (b"204 No Content\r\nContent-Length: 3\r\n", b"GET", Body.NONE),
            (b"304 Not Modified\r\nContent-Length: 3\r\n", b"GET", Body.NONE),
            (b"304 Not Modified\r\nTransfer-Encoding: chunked\r\n", b"GET", Body.NONE),
            (b"103 Early Hints\r\nLink: </a>\r\n", b"GET", Body.NONE),
            (b"200 OK\r\n", b"CONNECT", Body.OPAQUE),
            (b"407 No\r\nContent-Length: 3\r\n", b"CONNECT", Body.COUNTED),
            (b"200\r\nContent-Length: 3\r\n", b"GET", Body.COUNTED),
        ],
    )
    def test_which_body_follows(self, head, method, body):
        assert response_head(b"HTTP/1.1 " + head + b"\r\n", method).body is body

    def test_until_close_ends_at_eof(self):
        events = scan(b"HTTP/1.1 200 OK\r\n\r\nall of it", role=Role.RESPONSE, eof=True)
        assert events[1:] == [b"all of it", "END"]

    def test_a_body_cut_short_is_an_error_at_eof(self):
        events = scan(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", role=Role.RESPONSE, eof=True)
        assert events[1:] == [b"half", ("cut-short", 400)]

    def test_the_end_between_requests_is_no_error(self):
        assert scan(GET, eof=True)[-1] == "END"

    def test_informational_answers_come_before_the_answer(self):
        data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 204 No\r\n\r\n"
        heads = [event for event in events_of(data, [], role=Role.RESPONSE) if isinstance(event, Head)]
        assert [head.status for head in heads] == [100, 103, 204]
        assert scan(data, role=Role.RESPONSE)[-1] == "END"

    def test_informational_answers_are_bounded(self):
        data = b"HTTP/1.1 103 Hints\r\n\r\n" * 65
        assert error_of(data, role=Role.RESPONSE) == ("bad-head", 400)

    def test_101_is_opaque_when_it_was_asked_for(self):
        data = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n\x81\x05hello"
        assert scan(data, role=Role.RESPONSE, upgrade=True)[1:] == [b"\x81\x05hello"]
        assert error_of(data, role=Role.RESPONSE) == ("bad-head", 400)

    @pytest.mark.parametrize("fields", [b"", b"Upgrade: x\r\n", b"Connection: upgrade\r\nUpgrade: x\r\n"])
    @pytest.mark.parametrize("asked", [False, True])
    def test_why_a_101_is_refused(self, fields, asked):
        """Said in our words, not in those of llhttp, which stops there."""
        data = b"HTTP/1.1 101 Switching\r\n" + fields + b"\r\n"
        last = events_of(data, [], role=Role.RESPONSE, upgrade=asked)[-1]
        if not asked:
            assert isinstance(last, FramingError)
            assert last.reason == "101 answers a request that asked for no upgrade"
        elif b"Connection" not in fields:
            assert isinstance(last, FramingError)
            assert last.reason == "101 comes without Upgrade and Connection: upgrade"
        else:
            assert isinstance(last, Head)

    def test_a_101_is_looked_at_to_its_end(self):
        """What else is wrong with it is found as in any other head."""
        fields = b"X: 1\r\n" * 6
        data = b"HTTP/1.1 101 Switching\r\n" + fields + b"\r\n"
        assert error_of(data, role=Role.RESPONSE, upgrade=True, limits=SMALL)[0] == "head-too-large"

    def test_what_follows_a_response_waits(self):
        scanner = Scanner(Role.RESPONSE)
        scanner.resume(b"HEAD")
        events = scanner.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\n")
        assert events[-1] is END
        assert scanner.pending == 17


BAD_REQUEST_HEADS = {
    "content-length twice": b"Content-Length: 5\r\nContent-Length: 5",
    "content-lengths that differ": b"Content-Length: 5\r\nContent-Length: 6",
    "content-length list": b"Content-Length: 5, 5",
    "content-length sign": b"Content-Length: +5",
    "content-length hex": b"Content-Length: 0x5",
    "content-length empty": b"Content-Length:",
    "content-length huge": b"Content-Length: 99999999999999999999",
    "content-length underscore": b"Content-Length: 1_0",
    "CL.TE": b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    "TE.CL": b"Transfer-Encoding: chunked\r\nContent-Length: 5",
    "TE unknown": b"Transfer-Encoding: xchunked",
    "TE chunked twice": b"Transfer-Encoding: chunked, chunked",
    "TE chunked twice in two fields": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "TE chunked not last": b"Transfer-Encoding: chunked, gzip",
    "TE not chunked": b"Transfer-Encoding: gzip",
    "TE identity": b"Transfer-Encoding: identity",
    "TE vertical tab": b"Transfer-Encoding: \x0bchunked",
    "TE quoted": b'Transfer-Encoding: "chunked"',
    "TE space before colon": b"Transfer-Encoding : chunked",
    "TE empty": b"Transfer-Encoding:",
    "TE folded": b"Transfer-Encoding:\r\n chunked",
    "obs-fold": b"X: a\r\n b",
    "obs-fold with tab": b"X: a\r\n\tb",
    "fold in the first field": b" X: a",
    "NUL": b"X: a\0b",
    "control character": b"X: a\x01b",
    "DEL": b"X: a\x7fb",
    "bare CR": b"X: a\rb",
    "bare LF": b"X: a\nY: b",
    "space in a name": b"X Y: a",
    "no colon": b"X",
    "no name": b": a",
    "name beyond ASCII": b"X\x80: a",
    "two hosts": b"Host: a\r\nHost: b",
}


class TestBadRequests:
    @pytest.mark.parametrize("fields", BAD_REQUEST_HEADS.values(), ids=BAD_REQUEST_HEADS.keys())
    def test_bad_fields(self, fields):
        data = b"POST / HTTP/1.1\r\n" + fields + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        events = events_of(data, [])
        assert len(events) == 1
        assert isinstance(events[0], FramingError)
        assert events[0].code == "bad-head"
        assert events[0].status in (400, 501)

    @pytest.mark.parametrize(
        "line",
        [
            b"GET /",
            b"GET / HTTP/1.2",
            b"GET / HTTP/2.0",
            b"GET  / HTTP/1.1",
            b"GET / HTTP/1.1 ",
            b"GET /a b HTTP/1.1",
            b" GET / HTTP/1.1",
            b"G\x80T / HTTP/1.1",
            b"get / HTTP/1.1",
            b"NOSUCHMETHOD / HTTP/1.1",
            b"HTTP/1.1 200 OK",
            b"SSH-2.0-OpenSSH_9.6",
        ],
    )
    def test_bad_request_lines(self, line):
        assert error_of(line + b"\r\nHost: a\r\n\r\n") == ("bad-head", 400)

    def test_transfer_encoding_in_http_1_0(self):
        assert error_of(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n") == ("bad-head", 400)
        for status, body in ((b"200", Body.UNTIL_CLOSE), (b"304", Body.NONE)):
            scanner = Scanner(Role.RESPONSE)
            scanner.resume(b"GET")
            fields = b"Connection: keep-alive\r\nTransfer-Encoding: no-such, chunked\r\n"
            head = scanner.feed(b"HTTP/1.0 " + status + b" \r\n" + fields + b"\r\n")[0]
            assert isinstance(head, Head)
            assert (head.body, head.keep_alive) == (body, False)

    @pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01", b"hello\nworld", b"hello world\r\n", b"a\rb"])
    def test_garbage_is_refused_before_a_head_is_whole(self, garbage):
        assert error_of(garbage) == ("bad-head", 400)

    def test_a_head_may_be_as_large_as_the_limit(self):
        limits = Limits(head_bytes_max=len(GET))
        assert scan(GET, limits=limits)[-1] == "END"
        assert error_of(GET, limits=Limits(head_bytes_max=len(GET) - 1)) == ("head-too-large", 431)

    def test_a_head_without_end_is_refused(self):
        assert error_of(b"GET / HTTP/1.1\r\nX: " + b"a" * 65_536) == ("head-too-large", 431)

    def test_the_number_of_fields_is_bounded(self):
        fields = b"".join(b"X-%d: a\r\n" % number for number in range(200))
        assert scan(b"GET / HTTP/1.1\r\n" + fields + b"\r\n")[-1] == "END"
        assert error_of(b"GET / HTTP/1.1\r\nY: b\r\n" + fields + b"\r\n") == ("head-too-large", 431)

    def test_nothing_comes_after_a_failure(self):
        scanner = Scanner(Role.REQUEST)
        assert isinstance(scanner.feed(b"\0")[0], FramingError)
        assert scanner.feed(GET) == []
        assert scanner.eof() == []


BAD_CHUNKS = {
    "no size": (b"\r\nhello\r\n", b""),
    "size with sign": (b"+5\r\nhello\r\n", b""),
    "size with 0x": (b"0x5\r\nhello\r\n", b"0"),
    "size with space": (b"5 \r\nhello\r\n", b"5"),
    "space before size": (b" 5\r\nhello\r\n", b""),
    "size too large": (b"1234567890abcdef\r\n", b"1234567890abcde"),
    "bare LF after size": (b"5\nhello\r\n", b"5"),
    "bare CR after size": (b"5\rhello\r\n", b"5\r"),
    "bare LF in extension": (b"5;a\nb\r\nhello\r\n", b"5;a"),
    "NUL in extension": (b"5;a\0\r\nhello\r\n", b"5;a"),
    "chunk longer than its size": (b"5\r\nhello!\r\n", b"5\r\nhello"),
    "chunk ended by LF": (b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello"),
    "chunk ended by CR": (b"5\r\nhello\r0\r\n\r\n", b"5\r\nhello\r"),
    "trailer without colon": (b"0\r\nabc\r\n\r\n", b"0\r\nabc"),
    "trailer folded": (b"0\r\nA: b\r\n c\r\n\r\n", b"0\r\nA: b\r\n"),
    "trailer with NUL": (b"0\r\nA: \0\r\n\r\n", b"0\r\nA: "),
}
CHUNKED_HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


class TestBadBodies:
    @pytest.mark.parametrize(("body", "legal"), BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
    def test_bad_chunks(self, body, legal):
        expected = [legal, ("bad-body", 400)] if legal else [("bad-body", 400)]
        assert scan(CHUNKED_HEAD + body)[1:] == expected
        assert scan(CHUNKED_HEAD + body, list(range(1000)))[1:] == expected

    def test_extensions_and_trailers_are_bounded(self):
        assert scan(CHUNKED_HEAD + b"1;" + b"a" * 5000 + b"\r\n")[-1] == ("bad-body", 400)
        trailer = b"A: " + b"b" * 1000 + b"\r\n"
        assert scan(CHUNKED_HEAD + b"0\r\n" + trailer * 20 + b"\r\n")[-1] == ("bad-body", 400)
        assert scan(CHUNKED_HEAD + b"0\r\n" + trailer * 15 + b"\r\n")[-1] == "END"

    def test_a_line_at_its_limit_is_cut_at_the_same_byte_however_it_is_split(self):
        limits = Limits(size_line_bytes_max=8)
        data = CHUNKED_HEAD + b"1;abcdefgh\r\nx\r\n"
        whole = scan(data, limits=limits)
        assert whole == scan(data, list(range(len(data))), limits=limits)
        assert whole[1:] == [b"1;abcde", ("bad-body", 400)]


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
SMALL = Limits(head_bytes_max=120, fields_max=5, size_line_bytes_max=16, trailer_bytes_max=24, informational_max=3)


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


@pytest.mark.parametrize("data", [GET, POST, b"\r\n" + POST])
def test_a_whole_message_in_one_piece_is_its_head_alone(data):
    scanner, other = Scanner(Role.REQUEST), Scanner(Role.REQUEST)
    for _ in range(2):  # the second time its head is known
        head = scanner.scan(data)
        assert isinstance(head, Head)
        assert outline([head, data[len(head.raw) :], END]) == outline(other.feed(data))
        assert scanner.stopped
        assert scanner.resume() == other.resume() == []
    events = scanner.scan(data + b"G")
    assert isinstance(events, list)
    assert outline(events) == outline(other.feed(data + b"G"))
    assert scanner.pending == other.pending == 1


def test_a_known_head_does_not_make_the_next_one_legal():
    scanner = Scanner(Role.REQUEST)
    assert isinstance(scanner.scan(POST), Head)
    scanner.resume()
    bad = POST.replace(b": 5\r\n", b": 5\n\n")
    assert outline(scanner.feed(bad)) == [("bad-head", 400)]

"""What the scanner refuses and with which status, and its bounds."""

from __future__ import annotations

import pytest
from scanning import GET, error_of, events_of, scan

from sidecar.wire.framing import Body, FramingError, Head, Limits, Role, Scanner

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

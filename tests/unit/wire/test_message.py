"""Messages read out of copied bytes."""

from __future__ import annotations

import pytest

from sidecar.wire.framing import FramingError
from sidecar.wire.message import read_request, read_response

REQUEST = b"POST /v1/x?y=1 HTTP/1.1\r\nHost: a\r\nX-Two: 1\r\nx-two:  2 \r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n"


class TestRequests:
    def test_whole(self):
        message = read_request(REQUEST)
        assert (message.method, message.target) == ("POST", "/v1/x?y=1")
        assert message.fields == [("Host", "a"), ("X-Two", "1"), ("x-two", "2"), ("Content-Length", "5")]
        assert message.get("X-TWO") == "1"
        assert message.get("absent") is None
        assert message.get("absent", "") == ""
        assert message.body == b"hello"
        assert message.complete

    @pytest.mark.parametrize("size", range(len(REQUEST)))
    def test_every_beginning_is_incomplete_and_no_error(self, size):
        message = read_request(REQUEST[:size])
        assert not message.complete
        assert b"hello".startswith(message.body)

    def test_a_head_that_is_not_whole_says_nothing(self):
        message = read_request(REQUEST[:20])
        assert (message.start_line, message.fields, message.method, message.target) == (b"", [], "", "")

    def test_bytes_beyond_ascii_survive(self):
        message = read_request(b"GET / HTTP/1.1\r\nX: caf\xc3\xa9\r\n\r\n")
        assert message.get("x").encode("latin-1").decode() == "café"

    def test_garbage(self):
        with pytest.raises(FramingError):
            read_request(b"\x16\x03\x01\x00\xa5\x01\x00")


class TestResponses:
    def test_chunked_coding_is_undone(self):
        message = read_response(CHUNKED, method="GET", eof=False)
        assert message.body == b"hello world"
        assert message.trailers == [("X-T", "1")]
        assert message.status == 200
        assert message.complete

    @pytest.mark.parametrize("size", range(len(CHUNKED)))
    def test_every_beginning_of_a_chunked_one(self, size):
        message = read_response(CHUNKED[:size], method="GET", eof=True)
        if message is not None:
            assert b"hello world".startswith(message.body)
            assert not message.complete

    def test_informational_ones_are_skipped(self):
        data = b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\n"
        assert read_response(data, method="GET", eof=False) is None
        message = read_response(data + b"HTTP/1.1 204 No\r\n\r\n", method="GET", eof=False)
        assert message.status == 204
        assert message.complete

    def test_until_close(self):
        data = b"HTTP/1.1 200 OK\r\n\r\npart"
        assert not read_response(data, method="GET", eof=False).complete
        assert read_response(data, method="GET", eof=True).complete

    def test_answer_to_head(self):
        message = read_response(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", method="HEAD", eof=False)
        assert message.complete
        assert message.body == b""

    def test_upgrade_is_complete_and_its_bytes_are_not_a_body(self):
        data = b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi"
        message = read_response(data, method="GET", eof=False)
        assert (message.status, message.body, message.complete) == (101, b"", True)

    def test_garbage(self):
        with pytest.raises(FramingError):
            read_response(b"hello\r\n\r\n", method="GET", eof=False)

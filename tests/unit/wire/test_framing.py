"""The scanner, as dialogues of bytes and events: what is a message, where it ends, and what its head says."""

from __future__ import annotations

import pytest
from scanning import CHUNKED, GET, POST, SMALL, error_of, events_of, head_of, outline, response_head, scan

from sidecar.wire.framing import END, Body, FramingError, Head, Role, Scanner


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

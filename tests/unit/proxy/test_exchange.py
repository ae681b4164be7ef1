from __future__ import annotations

import pytest

from sidecar.proxy.config import Upstream
from sidecar.proxy.exchange import Exchange, gather
from sidecar.proxy.route import Route
from sidecar.proxy.upstream import Origin
from sidecar.wire.framing import Head, Role, Scanner
from sidecar.wire.records import EndFlag
from sidecar.wire.status import STATUS_BYTES, Slot, StatusPage


class Recorder:
    def __init__(self, log):
        self.log = log

    def request(self, data, head_bytes=0):
        self.log.append(("request", data, head_bytes))

    def response(self, data, head_bytes=0):
        self.log.append(("response", data, head_bytes))

    def last(self, data, head_bytes, flags):
        self.log.append(("last", data, head_bytes, flags))

    def end(self, flags=0):
        self.log.append(("end", flags))


def head_of(data: bytes) -> Head:
    head = Scanner(Role.REQUEST).feed(data)[0]
    assert isinstance(head, Head)
    return head


@pytest.fixture
def log():
    return []


@pytest.fixture
async def route(log):
    status = StatusPage(bytearray(STATUS_BYTES))
    origin = Origin(Upstream.parse("http://h"), status)
    return Route(3, origin, status, authority=b"up", copy=lambda _: Recorder(log))


GET = b"GET / HTTP/1.1\r\nA: b\r\nHost: agent:1 \r\n\r\n"


async def test_host_alone_is_rewritten_and_the_copy_is_as_received(route, log):
    head = head_of(GET)
    exchange = Exchange(route, head, local=False)
    assert exchange.up(GET, head=head) == b"GET / HTTP/1.1\r\nA: b\r\nHost: up \r\n\r\n"
    assert log == [("request", GET, len(GET))]


async def test_host_preserved_is_the_same_object(route):
    route.authority = None
    head = head_of(GET)
    assert Exchange(route, head, local=False).up(GET, head=head) is GET


async def test_only_small_idempotent_requests_are_kept_for_another_try(route):
    for line, kept in ((b"GET", True), (b"PUT", True), (b"POST", False), (b"PATCH", False)):
        head = head_of(line + b" / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        exchange = Exchange(route, head, local=False)
        exchange.allow_replay()
        exchange.up(head.raw, head=head)
        assert (exchange.replay is not None) is kept
        exchange.up(b"x" * 70_000, head=None)
        assert exchange.replay is None


async def test_the_end_is_counted_once(route, log):
    exchange = Exchange(route, head_of(GET), local=False)
    exchange.count_begun()
    assert route.status.get(Slot.REQUESTS) == route.status.get(Slot.EXCHANGES_OPEN) == 1
    exchange.down(b"12345", 0)
    exchange.flags |= int(EndFlag.ABORTED_BY_ORIGIN)
    exchange.opaque = True
    exchange.end()
    exchange.end()
    assert log[-1] == ("end", EndFlag.ABORTED_BY_ORIGIN | EndFlag.OPAQUE)
    assert [entry[0] for entry in log].count("end") == 1
    assert route.status.get(Slot.ABORTED_BY_ORIGIN) == 1
    assert route.status.get(Slot.ABORTED_BY_CLIENT) == 0
    assert route.status.get(Slot.BYTES_DOWN) == 5
    assert route.status.get(Slot.EXCHANGES_OPEN) == 0


async def test_an_answer_of_our_own_is_copied_and_counted(route, log):
    exchange = Exchange(route, head_of(GET), local=False)
    answer = exchange.answer(502, "refused", "why")
    assert log == [("response", answer, answer.index(b"{"))]
    assert route.status.get(Slot.RESPONSES_5XX) == 1


@pytest.mark.parametrize("done", [True, False])
async def test_a_whole_answer_ends_the_copy_if_the_request_is_complete(route, log, done):
    exchange = Exchange(route, head_of(GET), local=False)
    exchange.request_done = done
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    exchange.down_whole(answer, Head(answer[:-2]))
    exchange.end()
    whole = ("last", answer, len(answer) - 2, 0) if done else ("response", answer, len(answer) - 2)
    assert log == [whole, ("end", 0)]
    assert route.status.get(Slot.BYTES_DOWN) == len(answer)


async def test_statuses_beyond_the_classes_are_not_counted(route):
    exchange = Exchange(route, head_of(GET), local=False)
    exchange.responded(999)
    assert exchange.response_begun


def test_gathering_gives_back_what_was_received():
    data = GET.replace(b"GET", b"POST").replace(b"A: b", b"Content-Length: 3") + b"abc"
    heads, received = gather(Scanner(Role.REQUEST).feed(data))
    assert [head.method for head in heads] == [b"POST"]
    assert received == data
    assert gather([b"x"]) == ([], b"x")

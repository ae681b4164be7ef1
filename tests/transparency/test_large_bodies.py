"""A body far larger than any buffer, with a reader that stops and starts: the proxy's memory stays where it was.

`LARGE_BODY_MIB=1024` sends a gigabyte in each direction.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading

import pytest

from .conftest import Origin, Proxy, listen, receive, receive_head, run_proxy

MIB = 1 << 20
SIZE = int(os.environ.get("LARGE_BODY_MIB", "160")) * MIB
GROWTH_MAX = 64 * MIB  # the queue's own 8 MiB, which count as the process's when they are written, included
PIECE = bytes(range(256)) * 4096


def send(sock: socket.socket, digests: list[str]) -> None:
    digest = hashlib.sha256()
    for number in range(SIZE // len(PIECE)):
        piece = number.to_bytes(8, "big") + PIECE[8:]
        digest.update(piece)
        sock.sendall(piece)
    digests.append(digest.hexdigest())


def read_in_fits(sock: socket.socket, proxy: Proxy) -> tuple[str, int]:
    """Read all of it, looking at the proxy's memory while everything is stuck; the digest and the most memory seen."""
    digest, left, most = hashlib.sha256(), SIZE, 0
    while left:
        wait_until_stuck(proxy)
        most = max(most, proxy.memory_bytes())
        fit = min(left, SIZE // 8)
        left -= fit
        while fit:
            data = sock.recv(min(fit, MIB))
            assert data, "the body ended early"
            digest.update(data)
            fit -= len(data)
    return digest.hexdigest(), most


def wait_until_stuck(proxy: Proxy) -> None:
    """Wait until what is on its way no longer grows: the sockets are full, and whatever may be buffered is."""
    seen, before = 0, -1
    while seen != before:
        before = seen
        threading.Event().wait(0.1)
        seen = proxy.memory_bytes() // MIB


@pytest.mark.parametrize("direction", ["down", "up"])
@pytest.mark.parametrize("framing", ["counted", "chunked"])
def test_a_slow_reader_costs_no_memory(direction: str, framing: str) -> None:
    own: Origin = listen()
    with own.listener, run_proxy([{"upstream": f"http://127.0.0.1:{own.port}"}]) as proxy, proxy.client() as client:
        idle = proxy.memory_bytes()
        field = b"Content-Length: %d" % SIZE if framing == "counted" else b"Transfer-Encoding: chunked"
        first = b"" if framing == "counted" else b"%x\r\n" % SIZE  # one chunk of this size: none is put together
        if direction == "down":
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            upstream = own.next()
            receive_head(upstream)
            sender, reader, line = upstream, client, b"HTTP/1.1 200 OK"
        else:
            sender, reader, line = client, client, b"POST / HTTP/1.1\r\nHost: a"
        sender.sendall(line + b"\r\n" + field + b"\r\n\r\n" + first)
        if direction == "up":
            reader = own.next()
        receive_head(reader)
        assert receive(reader, len(first)) == first
        digests: list[str] = []
        sending = threading.Thread(target=send, args=(sender, digests), daemon=True)
        sending.start()
        digest, most = read_in_fits(reader, proxy)
        sending.join(20)
        assert digests == [digest]
        assert most - idle < GROWTH_MAX
        client.close()
        own.forget_connections()

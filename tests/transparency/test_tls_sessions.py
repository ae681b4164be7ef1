"""TLS towards the origin: the server's name is sent, and a session is resumed on the next connection."""

from __future__ import annotations

import ssl

from .conftest import Origin, Proxy, receive_head

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_sessions_are_resumed(proxy: Proxy, origins: list[Origin]) -> None:
    origin = origins[1]
    resumed = []
    for _ in range(2):
        with proxy.client(1) as client:
            client.sendall(GET)
            upstream = origin.next()
            assert isinstance(upstream, ssl.SSLSocket)
            receive_head(upstream)
            upstream.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            receive_head(client)
            resumed.append(upstream.session_reused)
        origin.forget_connections()
    assert resumed[-1]


def test_the_name_is_sent(proxy: Proxy, origins: list[Origin]) -> None:
    origin = origins[1]
    assert origin.tls is not None
    names: list[str] = []
    origin.tls.sni_callback = lambda _socket, name, _context: names.append(name)
    with proxy.client(1) as client:
        client.sendall(GET)
        receive_head(origin.next())
    origin.tls.sni_callback = None
    assert names == ["localhost"]

"""WebSocket through the proxy, by the `websockets` library on both ends: the same script of random frames, direct and
through, gives the same frames, one by one. Other upgrades and HTTP/2 prior knowledge; tunnels end with a drain.

`WEBSOCKET_MESSAGES=20000` makes the exchanges as long.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from sidecar.wire.records import EndFlag

from .conftest import Copies, Origin, Proxy, deliver, listen, receive, receive_all, receive_head, run_proxy

MESSAGES = int(os.environ.get("WEBSOCKET_MESSAGES", "400"))
SIZES = (0, 1, 125, 126, 127, 1000, 65_535, 65_536, 200_000)


class Watched:
    """Notes every frame that a connection receives, as its protocol sees it."""

    def __init__(self, protocol, *args, **options) -> None:
        self.seen: list[tuple[int, bool, bytes]] = []
        receive_frame = protocol.recv_frame

        def note(frame: Frame) -> None:
            self.seen.append((int(frame.opcode), frame.fin, bytes(frame.data)))
            receive_frame(frame)

        protocol.recv_frame = note
        super().__init__(protocol, *args, **options)


class WatchedClient(Watched, ClientConnection):
    pass


class WatchedServer(Watched, ServerConnection):
    pass


def script(seed: int, messages: int) -> list[tuple[str, list[bytes]]]:
    """What one side sends: messages of every size, fragmented or not, pings among them."""
    chance = random.Random(seed)
    steps = []
    for number in range(messages):
        kind = chance.choice(["text", "binary", "binary", "fragments", "ping"])
        size = chance.choice(SIZES[:6] if kind != "binary" else SIZES)
        data = chance.randbytes(size)
        if kind == "ping":
            data = number.to_bytes(4, "big") + data[:121]  # no two alike, or the library cannot tell their pongs apart
        parts = [data[at : at + 50] for at in range(0, len(data), 50)][:8] if kind == "fragments" else [data]
        steps.append((kind, parts or [b""]))
    return steps


async def speak(connection: ClientConnection | ServerConnection, steps: list[tuple[str, list[bytes]]]) -> None:
    for kind, parts in steps:
        if kind == "text":
            await connection.send(parts[0].hex())
        elif kind == "binary":
            await connection.send(parts[0])
        elif kind == "fragments":
            await connection.send(parts)
        else:
            await connection.ping(parts[0])


async def listen_to(connection: ClientConnection | ServerConnection, messages: int) -> None:
    for _ in range(messages):
        await connection.recv()


def messages_in(steps: list[tuple[str, list[bytes]]]) -> int:
    return sum(kind != "ping" for kind, _ in steps)


class Talk:
    """A server that plays its half of the script on each connection, and what each side saw."""

    def __init__(self, seed: int) -> None:
        self.up, self.down = script(seed, MESSAGES), script(seed + 1, MESSAGES)
        self.seen_by_server: list[list[tuple[int, bool, bytes]]] = []

    async def serve(self, connection: WatchedServer) -> None:
        self.seen_by_server.append(connection.seen)
        await asyncio.gather(speak(connection, self.down), listen_to(connection, messages_in(self.up)))
        with contextlib.suppress(ConnectionClosed):
            await connection.recv()  # the client closes, with a code of its own

    async def hold(self, url: str, **options) -> tuple[list[tuple[int, bool, bytes]], ...]:
        """Play the client's half; the data frames that client and server saw, and how it ended."""
        options = {"compression": None, "ping_interval": None, "max_size": None, "proxy": None} | options
        options["create_connection"] = WatchedClient
        async with asyncio.timeout(60), connect(url, **options) as connection:
            await asyncio.gather(speak(connection, self.up), listen_to(connection, messages_in(self.down)))
            await connection.close(4321, "that is all")
            assert connection.close_code == 4321
            extensions = [str(extension) for extension in connection.protocol.extensions]
        return data_frames(connection.seen), data_frames(self.seen_by_server[-1]), extensions


def data_frames(frames: list[tuple[int, bool, bytes]]) -> list[tuple[int, bool, bytes]]:
    """Without pongs: a ping's answer comes when the reader gets to it, so where it stands differs each time."""
    return [frame for frame in frames if frame[0] != Opcode.PONG]


@contextlib.asynccontextmanager
async def playing(talk: Talk, **options) -> AsyncIterator[int]:
    server_options = {"compression": None, "ping_interval": None, "max_size": None} | options
    server_options["create_connection"] = WatchedServer
    async with serve(talk.serve, "127.0.0.1", 0, **server_options) as server:
        yield next(iter(server.sockets)).getsockname()[1]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_frame_for_frame_as_direct(seed, compression):
    talk = Talk(seed)
    async with playing(talk, compression=compression) as port:
        direct = await talk.hold(f"ws://127.0.0.1:{port}/chat?x=1", compression=compression)
        with run_proxy([{"upstream": f"http://127.0.0.1:{port}"}]) as proxy:
            host, proxy_port = proxy.routes[0]
            through = await talk.hold(f"ws://{host}:{proxy_port}/chat?x=1", compression=compression)
    assert len(direct[1]) > MESSAGES
    assert through == direct


async def test_over_tls_to_the_origin(authority, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    talk = Talk(7)
    async with playing(talk, ssl=context) as port:
        with run_proxy([{"upstream": f"https://localhost:{port}"}], upstream_ca_file=str(trusted)) as proxy:
            host, proxy_port = proxy.routes[0]
            client_saw, server_saw, _ = await talk.hold(f"ws://{host}:{proxy_port}/")
    assert len(client_saw) > MESSAGES
    assert len(server_saw) > MESSAGES


async def test_errors_of_the_protocol_are_between_the_two_ends():
    """A frame that breaks the protocol is not the proxy's to judge: the server closes with its own code."""
    codes, server_codes = [], []

    async def obey(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await connection.recv()
        server_codes.append(connection.close_code)

    async with serve(obey, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with run_proxy([{"upstream": f"http://127.0.0.1:{port}"}]) as proxy:
            for host, tcp in (("127.0.0.1", port), proxy.routes[0]):
                async with asyncio.timeout(20), connect(f"ws://{host}:{tcp}/", proxy=None) as connection:
                    connection.transport.write(b"\x83\x80\0\0\0\0")  # opcode 3 is reserved
                    with pytest.raises(ConnectionClosed) as closed:
                        await connection.recv()
                    codes.append(closed.value.rcvd.code)
    assert codes == [1002] * 2
    assert server_codes[0] == server_codes[1]


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def test_http_2_by_prior_knowledge_is_opaque(proxy: Proxy, origin: Origin, copies: Copies, delivery: str) -> None:
    frames = b"\0\0\6\4\0\0\0\0\0\0\3\0\0\0d" + bytes(range(256)) * 20
    answer = b"\0\0\0\4\0\0\0\0\0" + bytes(range(255, -1, -1)) * 20
    with proxy.client() as client:
        deliver(client, PREFACE + frames, delivery)
        upstream = origin.next()
        assert receive(upstream, len(PREFACE + frames)) == PREFACE + frames
        deliver(upstream, answer, delivery)
        assert receive(client, len(answer)) == answer
        client.shutdown(socket.SHUT_WR)
        assert receive_all(upstream) == b""
        upstream.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b""
    request, response, flags, _ = copies.next()
    assert (request, response, flags) == (PREFACE + frames, answer, EndFlag.OPAQUE)


@pytest.mark.parametrize("kind", ["upgrade", "h2c"])
def test_tunnels_end_within_the_drain(kind):
    """SIGTERM: a tunnel goes on while the drain lasts, and is ended with it; the process exits by itself."""
    own = listen()
    with own.listener, run_proxy([{"upstream": f"http://127.0.0.1:{own.port}"}], drain_seconds=1.0) as proxy:
        client = proxy.client()
        client.sendall(PREFACE if kind == "h2c" else UPGRADE)
        upstream = own.next()
        if kind == "h2c":
            assert receive(upstream, len(PREFACE)) == PREFACE
        else:
            receive_head(upstream)
            upstream.sendall(SWITCH)
            assert receive(client, len(SWITCH)) == SWITCH
        proxy.process.send_signal(signal.SIGTERM)
        for number in range(3):
            client.sendall(b"ping %d" % number)
            assert receive(upstream, 6) == b"ping %d" % number
            upstream.sendall(b"pong %d" % number)
            assert receive(client, 6) == b"pong %d" % number
        with contextlib.suppress(ConnectionResetError):
            assert receive_all(client) == b""
        with contextlib.suppress(ConnectionResetError):
            assert receive_all(upstream) == b""
        assert proxy.process.wait(20) == 0
        client.close()
        upstream.close()

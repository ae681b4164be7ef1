"""A real proxy process between a raw client and a raw origin, both plain blocking sockets in the test's own hands."""

from __future__ import annotations

import contextlib
import json
import random
import selectors
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from ports import held_port

from sidecar.wire.records import Kind
from sidecar.wire.ring import RingReader
from sidecar.wire.status import StatusPage

PATIENCE_S = 20.0  # the bound of every wait; nothing is measured against it
HOST = b"agent.example"


def deliver(sock: socket.socket, data: bytes, delivery: str) -> None:
    """Send `data` whole, split at odd places, or byte by byte."""
    if delivery == "whole":
        sock.sendall(data)
        return
    if delivery == "bytes" and len(data) <= 4096:
        for index in range(len(data)):
            sock.sendall(data[index : index + 1])
        return
    chance = random.Random(len(data))
    at = 0
    while at < len(data):
        size = chance.choice([1, 2, 3, 7, 50, 1000, 9000])
        sock.sendall(data[at : at + size])
        at += size


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes, or fewer when the peer ends before."""
    data = bytearray()
    while len(data) < size and (piece := sock.recv(min(size - len(data), 1 << 20))):
        data += piece
    return bytes(data)


def receive_all(sock: socket.socket) -> bytes:
    """Everything until the peer ends."""
    return receive(sock, 1 << 40)


def receive_head(sock: socket.socket) -> bytes:
    """Byte by byte up to an empty line."""
    data = b""
    while not data.endswith(b"\r\n\r\n") and (piece := sock.recv(1)):
        data += piece
    return data


def reset(sock: socket.socket) -> None:
    """Close it so that the peer gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@dataclass
class Origin:
    """Listens; hands the test each connection on which something arrived, be it new or kept by the proxy's pool."""

    listener: socket.socket
    tls: ssl.SSLContext | None = None
    connections: list[socket.socket] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.listener.getsockname()[1]

    @property
    def authority(self) -> bytes:
        return f"localhost:{self.port}".encode()

    def next(self) -> socket.socket:
        """The connection that the next request comes on."""
        with selectors.DefaultSelector() as selector:
            for sock in (self.listener, *self.connections):
                selector.register(sock, selectors.EVENT_READ)
            deadline = time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline:
                for key, _ in selector.select(1.0):
                    if key.fileobj is not self.listener:
                        return key.fileobj  # type: ignore[return-value]
                    return self.accept()
        raise AssertionError("nothing arrived at the origin")

    def accept(self) -> socket.socket:
        sock, _ = self.listener.accept()
        sock.settimeout(PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is not None:
            sock = self.tls.wrap_socket(sock, server_side=True)
        self.connections.append(sock)
        return sock

    def drop(self, sock: socket.socket, how: str) -> None:
        """Close one connection, with a reset or, for any other `how`, an end."""
        if how == "reset":
            reset(sock)
        else:
            sock.close()
        self.connections.remove(sock)

    def forget_connections(self) -> None:
        """End what is open and wait until the proxy has noticed, so that tests do not meet each other's connections."""
        for sock in self.connections:
            with contextlib.suppress(OSError):
                if isinstance(sock, ssl.SSLSocket):
                    sock.unwrap()
                else:
                    sock.shutdown(socket.SHUT_WR)
                receive_all(sock)
            sock.close()
        self.connections.clear()


def listen(tls: ssl.SSLContext | None = None) -> Origin:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(PATIENCE_S)
    return Origin(listener, tls)


@dataclass
class Proxy:
    """The process, its listeners in the order of its routes, and its directory."""

    process: subprocess.Popen[bytes]
    routes: list[tuple[str, int]]
    admin: tuple[str, int]
    directory: Path

    def client(self, route: int = 0) -> socket.socket:
        return connect(self.routes[route])

    def is_compiled(self) -> bool:
        with connect(self.admin) as client:
            client.sendall(b"GET /readyz?verbose HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return json.loads(receive_all(client).partition(b"\r\n\r\n")[2])["parts"]["proxy"]["compiled"]

    def memory_bytes(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")


def connect(address: tuple[str, int]) -> socket.socket:
    sock = socket.create_connection(address, timeout=PATIENCE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def split_address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return (text, 0) if host == "unix" else (host.strip("[]"), int(port))


@contextlib.contextmanager
def run_proxy(routes: list[dict[str, object]], **options: object) -> Iterator[Proxy]:
    directory = Path(tempfile.mkdtemp(prefix="sidecar-test-", dir="/dev/shm"))
    config = {
        "routes": [{"listen": "127.0.0.1:0", **route} for route in routes],
        "admin_listen": "127.0.0.1:0",
        "runtime_dir": str(directory),
        "observer_socket": str(directory / "observer.sock"),
        "queue_path": str(directory / "queue"),
        "queue_bytes": 8 << 20,
        "drain_seconds": 5.0,
        **options,
    }
    process = subprocess.Popen([sys.executable, "-P", "-m", "sidecar.proxy", json.dumps(config)])
    try:
        listening = directory / "listening.json"
        wait_for(lambda: listening.exists() or process.poll() is not None)
        found = json.loads(listening.read_text())
        addresses = [split_address(route["listen"]) for route in found["routes"]]
        yield Proxy(process, addresses, split_address(found["admin"]), directory)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
        shutil.rmtree(directory)


@contextlib.contextmanager
def scene(**options: object) -> Iterator[tuple[Proxy, Origin, StatusPage]]:
    """A proxy with these options before an origin of its own."""
    own = listen()
    with own.listener, run_proxy([{"upstream": f"http://127.0.0.1:{own.port}"}], **options) as proxy:
        reader = RingReader(str(proxy.directory / "queue"))
        try:
            yield proxy, own, reader.status
        finally:
            own.forget_connections()
            reader.close()


def wait_for(condition: Callable[[], bool]) -> None:
    """Look every 10 ms until it holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@dataclass
class Copies:
    """What the proxy put on the queue, exchange by exchange."""

    reader: RingReader
    open: dict[int, tuple[bytearray, bytearray]] = field(default_factory=dict)
    ended: list[tuple[bytes, bytes, int, int]] = field(default_factory=list)

    def poll(self) -> None:
        for record in self.reader.read(64 << 20):
            if record.kind in (Kind.REQUEST, Kind.RESPONSE):
                directions = self.open.setdefault(record.exchange, (bytearray(), bytearray()))
                directions[record.kind == Kind.RESPONSE].extend(record.payload)
            elif record.kind == Kind.END:
                request, response = self.open.pop(record.exchange, (bytearray(), bytearray()))
                self.ended.append((bytes(request), bytes(response), record.flags, record.listener))
            self.reader.release(record.end)

    def next(self) -> tuple[bytes, bytes, int, int]:
        """The next exchange that ended: request, response, flags, listener."""

        def there() -> bool:
            self.poll()
            return bool(self.ended)

        wait_for(there)
        return self.ended.pop(0)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def origins(authority: trustme.CA) -> Iterator[list[Origin]]:
    """Plain, TLS with a certificate of `authority`, TLS with one that nobody trusts."""
    contexts = []
    for issuer in (authority, trustme.CA()):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issuer.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        contexts.append(context)
    found = [listen(), listen(contexts[0]), listen(contexts[1])]
    yield found
    for origin in found:
        origin.listener.close()


@pytest.fixture(scope="session")
def shared_proxy(request, origins: list[Origin], authority: trustme.CA, tmp_path_factory) -> Iterator[Proxy]:
    """Routes: plain, TLS, TLS untrusted, plain with the Host preserved, nobody there."""
    ca_file = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    plain, trusted, untrusted = (origin.port for origin in origins)
    with held_port() as nobody:
        routes: list[dict[str, object]] = [
            {"upstream": f"http://localhost:{plain}"},
            {"upstream": f"https://localhost:{trusted}"},
            {"upstream": f"https://localhost:{untrusted}"},
            {"upstream": f"http://localhost:{plain}", "preserve_host": True},
            {"upstream": f"http://127.0.0.1:{nobody}"},
        ]
        with run_proxy(routes, upstream_ca_file=str(ca_file)) as proxy:
            assert proxy.is_compiled() is request.config.getoption("--compiled")
            yield proxy


@pytest.fixture(scope="session")
def shared_copies(shared_proxy: Proxy) -> Iterator[Copies]:
    reader = RingReader(str(shared_proxy.directory / "queue"))
    yield Copies(reader)
    reader.close()


@pytest.fixture
def copies(shared_copies: Copies) -> Copies:
    """Exchanges that end from here on."""
    shared_copies.poll()
    shared_copies.ended.clear()
    return shared_copies


@pytest.fixture
def proxy(shared_proxy: Proxy, origins: list[Origin]) -> Iterator[Proxy]:
    yield shared_proxy
    for origin in origins:
        origin.forget_connections()
    assert shared_proxy.process.poll() is None


@pytest.fixture
def origin(origins: list[Origin], proxy: Proxy) -> Origin:
    return origins[0]


@pytest.fixture(params=["whole", "split", "bytes"])
def delivery(request: pytest.FixtureRequest) -> str:
    return request.param

"""Where clients arrive: TLS with certificates that are renewed, Unix sockets, IPv6."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from sidecar.proxy.limits import crowd
from sidecar.wire.ring import RingReader
from sidecar.wire.status import Slot

from .conftest import Origin, Proxy, deliver, listen, receive, receive_all, receive_head, run_proxy, wait_for

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000


class Certificate:
    """A certificate and its key in two files, of an authority that `trust` knows."""

    def __init__(self, directory: Path, name: str = "localhost") -> None:
        self.directory = directory
        self.name = name
        self.authority = trustme.CA()
        self.cert, self.key = directory / "tls.crt", directory / "tls.key"
        self.renew()

    def renew(self) -> None:
        issued = self.authority.issue_cert(self.name)
        for path, blob in ((self.cert, issued.cert_chain_pems[0]), (self.key, issued.private_key_pem)):
            draft = path.with_suffix(".new")
            blob.write_to_path(str(draft))
            draft.replace(path)

    def options(self) -> dict[str, object]:
        """Of a proxy whose listeners show it."""
        return {"tls_cert_file": str(self.cert), "tls_key_file": str(self.key)}

    def trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate(tmp_path)


@pytest.fixture
def tls_proxy(certificate: Certificate) -> Iterator[tuple[Proxy, Origin]]:
    own = listen()
    options = certificate.options() | {"header_seconds": 1.0}
    with own.listener, run_proxy([{"upstream": f"http://127.0.0.1:{own.port}"}], **options) as proxy:
        yield proxy, own
        own.forget_connections()


def tls_client(proxy: Proxy, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(proxy.client(), server_hostname="localhost")


def ask(client: socket.socket, origin: Origin, request: bytes = GET, delivery: str = "whole") -> None:
    deliver(client, request, delivery)
    upstream = origin.next()
    expected = request.replace(b"Host: a", f"Host: 127.0.0.1:{origin.port}".encode())
    assert receive(upstream, len(expected)) == expected
    deliver(upstream, OK, delivery)
    assert receive(client, len(OK)) == OK


def test_a_tls_listener(tls_proxy, certificate, delivery):
    proxy, origin = tls_proxy
    with tls_client(proxy, certificate.trust()) as client:
        for request in (GET, POST, GET):
            ask(client, origin, request, delivery)


def test_a_handshake_that_never_comes_counts_as_a_connection(certificate):
    own = listen()
    options = certificate.options() | {"connections_max": 16}
    with own.listener, run_proxy([{"upstream": f"http://127.0.0.1:{own.port}"}], **options) as proxy:
        with contextlib.ExitStack() as stack, tls_client(proxy, certificate.trust()) as inside:
            status = RingReader(str(proxy.directory / "queue")).status
            silent = [stack.enter_context(proxy.client()) for _ in range(60)]
            wait_for(lambda: status.get(Slot.CONNECTIONS_REFUSED) == 61 - crowd(16))
            for client in silent[crowd(16) :]:  # far too many: cut before their handshake
                with contextlib.suppress(ConnectionResetError):
                    assert receive_all(client) == b""
            ask(inside, own)
        wait_for(lambda: status.get(Slot.CONNECTIONS_OPEN) == 0)
        with tls_client(proxy, certificate.trust()) as client:
            ask(client, own)
        own.forget_connections()


def test_it_speaks_http_1_1_and_no_old_tls(tls_proxy, certificate):
    proxy, _ = tls_proxy
    context = certificate.trust()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with tls_client(proxy, context) as client:
        assert client.selected_alpn_protocol() == "http/1.1"
        assert client.version() == "TLSv1.3"


def test_errors_go_through_tls_too(tls_proxy, certificate):
    proxy, _ = tls_proxy
    with tls_client(proxy, certificate.trust()) as client:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nX: \0\r\nContent-Length: 1000000\r\n\r\n"
        client.sendall(head + b"x" * 500_000)  # read away, or a reset would overtake the answer
        assert receive_all(client).startswith(b"HTTP/1.1 400 ")


def test_plain_http_and_silence_do_no_harm(tls_proxy, certificate):
    proxy, origin = tls_proxy
    with proxy.client() as plain, proxy.client() as silent:
        plain.sendall(GET)
        with contextlib.suppress(ConnectionError):
            assert b"HTTP/1.1 200" not in receive_all(plain)
        with contextlib.suppress(ConnectionError):
            assert receive_all(silent) == b""  # its handshake took too long
    with tls_client(proxy, certificate.trust()) as client:
        ask(client, origin)


def test_a_renewed_certificate_is_taken_up_and_open_connections_go_on(tls_proxy, certificate):
    proxy, origin = tls_proxy
    context = certificate.trust()
    reader = RingReader(str(proxy.directory / "queue"))
    with tls_client(proxy, context) as old:
        ask(old, origin)
        before = old.getpeercert(binary_form=True)
        certificate.renew()
        wait_for(lambda: reader.status.get(Slot.CERTIFICATE_RELOADS) == 1)
        failures = reader.status.get(Slot.CERTIFICATE_FAILURES)  # it may have looked between the two files
        with tls_client(proxy, context) as new:
            assert new.getpeercert(binary_form=True) != before
            ask(new, origin)
        certificate.cert.write_text("broken in the middle of a rotation")
        wait_for(lambda: reader.status.get(Slot.CERTIFICATE_FAILURES) > failures)
        with tls_client(proxy, context) as new:
            ask(new, origin)
        ask(old, origin)
    reader.close()


def start_failure(capfd, **options: object) -> str:
    """The reason that the proxy gives for not starting."""
    with pytest.raises(FileNotFoundError), run_proxy([{"upstream": "https://localhost:1"}], **options):
        pass
    return json.loads(capfd.readouterr().err.splitlines()[-1])["reason"]


def test_files_that_are_no_certificates(tmp_path, certificate, capfd):
    nothing = str(tmp_path / "nothing.pem")
    empty = tmp_path / "empty.pem"
    empty.touch()
    assert nothing in start_failure(capfd, tls_cert_file=nothing)
    assert "cannot be used for TLS" in start_failure(capfd, tls_cert_file=str(empty))
    (tmp_path / "other").mkdir()
    other = Certificate(tmp_path / "other")
    reason = start_failure(capfd, tls_cert_file=str(certificate.cert), tls_key_file=str(other.key))
    assert "KEY_VALUES_MISMATCH" in reason
    assert "cannot be used for upstreams" in start_failure(capfd, upstream_cert_file=str(empty))


def test_a_client_certificate_for_the_upstream(tmp_path):
    server, client = Certificate(tmp_path), trustme.CA()
    issued = client.issue_cert("agent@example.org")
    ours = tmp_path / "ours.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(ours))
    trusted = tmp_path / "ca.pem"
    server.authority.cert_pem.write_to_path(str(trusted))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.cert, server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    client.configure_trust(context)
    origin = listen(context)
    routes = [{"upstream": f"https://localhost:{origin.port}"}]
    options = {"upstream_ca_file": str(trusted), "upstream_cert_file": str(ours)}
    with origin.listener, run_proxy(routes, **options) as proxy, proxy.client() as agent:
        agent.sendall(GET)
        upstream = origin.next()
        receive_head(upstream)
        assert isinstance(upstream, ssl.SSLSocket)
        assert upstream.getpeercert()["subjectAltName"] == (("email", "agent@example.org"),)
        upstream.sendall(OK)
        assert receive(agent, len(OK)) == OK
        origin.forget_connections()


def test_a_unix_listener(tmp_path, delivery):
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    origin = listen()
    routes = [{"listen": f"unix:{path}", "upstream": f"http://127.0.0.1:{origin.port}"}]
    with origin.listener, run_proxy(routes, socket_mode=0o606):
        assert stat.S_IMODE(path.stat().st_mode) == 0o606
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(path))
            for request in (GET, POST, GET):
                ask(client, origin, request, delivery)
        origin.forget_connections()
    assert not path.exists()


def test_a_socket_file_that_another_process_took_over_stays(tmp_path):
    path = tmp_path / "agent.sock"
    with run_proxy([{"listen": f"unix:{path}", "upstream": "http://127.0.0.1:9"}]):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.exists()


@pytest.mark.parametrize("host", ["[::1]", "[::]", "127.0.0.1", "0.0.0.0", "localhost"])
def test_addresses_of_both_families(host):
    origin = socket.create_server(("::1", 0), family=socket.AF_INET6)
    origin.settimeout(20)
    routes = [{"listen": f"{host}:0", "upstream": f"http://[::1]:{origin.getsockname()[1]}"}]
    reachable = {"[::1]": ["::1"], "[::]": ["::1", "127.0.0.1"]}.get(host, ["127.0.0.1"])
    with origin, run_proxy(routes) as proxy:
        for address in reachable:
            with socket.create_connection((address, proxy.routes[0][1]), timeout=20) as client:
                client.sendall(GET.replace(b"Host: a", b"Host: a\r\nConnection: close"))
                upstream, _ = origin.accept()
                with upstream:
                    assert f"Host: [::1]:{origin.getsockname()[1]}\r\n".encode() in receive_head(upstream)
                    upstream.sendall(OK)
                assert receive_all(client) == OK

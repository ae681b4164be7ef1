"""Where the two APIs are: an option, the environment, an embedded one's note, the default."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sidecar import remote
from sidecar.remote import RemoteError


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    for name in (
        "ADMIN_LISTEN",
        "ADMIN_TOKEN",
        "ADMIN_TOKEN_FILE",
        "BILLING_URL",
        "BILLING_TOKEN",
        "BILLING_TOKEN_FILE",
    ):
        monkeypatch.delenv(f"SIDECAR_{name}", raising=False)
    monkeypatch.setenv("SIDECAR_DATA_DIR", str(tmp_path))


@pytest.mark.parametrize(
    ("named", "listen", "url"),
    [
        (None, None, "http://127.0.0.1:8090"),
        (None, "0.0.0.0:9000", "http://127.0.0.1:9000"),
        (None, "[::]:9000", "http://[::1]:9000"),
        ("10.0.0.7:8090", "0.0.0.0:9000", "http://10.0.0.7:8090"),
        ("http://10.0.0.7:8090/", None, "http://10.0.0.7:8090"),
        ("unix:/run/a.sock", None, "unix:/run/a.sock"),
    ],
)
def test_a_sidecar_is_found(named, listen, url, monkeypatch):
    if listen:
        monkeypatch.setenv("SIDECAR_ADMIN_LISTEN", listen)
    assert remote.admin(named).url == url


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:0", "host:99999"])
def test_an_address_that_cannot_be_asked_says_what_to_write(address):
    with pytest.raises(RemoteError, match="admin address"):
        remote.admin(address)


def test_the_billing_api_is_found(monkeypatch, tmp_path):
    assert remote.billing(None).url == remote.BILLING_DEFAULT
    (tmp_path / "billing.json").write_text(json.dumps({"address": "127.0.0.1:41234", "pid": 1}))
    assert remote.billing(None).url == "http://127.0.0.1:41234"
    monkeypatch.setenv("SIDECAR_BILLING_URL", "embedded")
    assert remote.billing(None).url == "http://127.0.0.1:41234"
    monkeypatch.setenv("SIDECAR_BILLING_URL", "https://billing.example.com/")
    assert remote.billing(None).url == "https://billing.example.com"
    assert remote.billing("http://b").url == "http://b"
    (tmp_path / "billing.json").write_text("{")
    assert remote.billing("embedded").url == remote.BILLING_DEFAULT
    with pytest.raises(RemoteError, match="is no URL"):
        remote.billing("localhost:8095")


def test_tokens_come_from_a_variable_or_a_file(monkeypatch, tmp_path):
    assert remote.billing(None).token is None
    monkeypatch.setenv("SIDECAR_BILLING_TOKEN", "plain")
    monkeypatch.setenv("SIDECAR_BILLING_TOKEN_FILE", "")  # as the server reads it: not set
    assert remote.billing(None).token == "plain"
    path = tmp_path / "token"
    path.write_text("from a file\n")
    monkeypatch.setenv("SIDECAR_BILLING_TOKEN_FILE", str(path))
    assert remote.billing(None).token == "from a file"
    path.write_bytes(b"\xff")
    with pytest.raises(RemoteError, match="is no text"):
        remote.billing(None)
    monkeypatch.setenv("SIDECAR_BILLING_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(RemoteError, match="cannot be read"):
        remote.billing(None)


def test_a_token_that_no_header_can_carry_is_refused(monkeypatch):
    monkeypatch.setenv("SIDECAR_ADMIN_TOKEN", "né")
    with pytest.raises(RemoteError, match="no HTTP header"):
        remote.admin(None).client(1)


@pytest.fixture
def answering():
    """Starts HTTP servers that answer everything with their name; returns their ports."""
    servers = []

    def start(name):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(name)))
                self.end_headers()
                self.wfile.write(name.encode())

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_no_proxy_stands_before_this_machine(answering, monkeypatch):
    here, proxy = answering("here"), answering("the proxy")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for found in (
        remote.admin(f"127.0.0.1:{here}"),
        remote.billing(f"http://127.0.0.1:{here}"),
        remote.billing(f"http://LocalHost:{here}/"),
    ):
        with found.client(10) as client:
            assert client.get("/").text == "here"
    with remote.billing("http://billing.example.com").client(10) as client:
        assert client.get("/").text == "the proxy"
    assert remote.billing("http://[::1]:8095").local
    assert remote.billing("unix:/run/billing.sock").local


@pytest.mark.parametrize(
    "url",
    ["http://ann:hunter2@billing", "http://ann:hun/hunter2@billing", "ftp://ann:hunter2@b", "ann:hunter2@billing:1"],
)
def test_credentials_in_an_address_are_refused_and_not_shown(url, monkeypatch):
    for ask in (remote.billing, remote.admin):
        with pytest.raises(RemoteError) as raised:
            ask(url)
        assert "***@b" in str(raised.value)
        assert "hunter2" not in str(raised.value)


def test_a_url_that_cannot_be_read_is_an_error():
    with pytest.raises(RemoteError, match="cannot be asked"):
        remote.billing("http://billing:port")

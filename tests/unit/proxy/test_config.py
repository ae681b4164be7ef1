from __future__ import annotations

import json

import pytest

from sidecar.proxy.config import Address, Config, ConfigError, Upstream

LEAST = {"runtime_dir": "/run/x", "admin_listen": "127.0.0.1:8090", "observer_socket": "/run/x/observer.sock"}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("[::1]:0", Address("::1", 0)),
        ("localhost:1", Address("localhost", 1)),
        ("unix:/run/a.sock", Address(path="/run/a.sock")),
    ],
)
def test_addresses(text, address):
    assert Address.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["8080", "localhost", "localhost:http", "localhost:65536", "[::1]"])
def test_bad_addresses(text):
    with pytest.raises(ConfigError, match="is not an address"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "tls"),
    [
        ("http://127.0.0.1:3000", "127.0.0.1", 3000, "127.0.0.1:3000", False),
        ("https://api.openai.com", "api.openai.com", 443, "api.openai.com", True),
        ("https://api.openai.com:443/", "api.openai.com", 443, "api.openai.com", True),
        ("http://[::1]:80", "::1", 80, "[::1]", False),
        ("https://h:8443", "h", 8443, "h:8443", True),
    ],
)
def test_upstreams(url, host, port, authority, tls):
    assert Upstream.parse(url) == Upstream(Address(host, port), authority, tls)


@pytest.mark.parametrize("url", ["api.openai.com", "ftp://x", "http://", "https://h/v1", "http://h?x=1", "http://h:x"])
def test_bad_upstreams(url):
    with pytest.raises(ConfigError, match="is not an upstream"):
        Upstream.parse(url)


def test_the_least_configuration_is_intake_only():
    config = Config.from_json(json.dumps(LEAST))
    assert config.routes == ()
    assert config.children == ()
    assert config.drain_seconds == 25.0


def test_routes_and_children():
    route = {"listen": "127.0.0.1:0", "upstream": "http://h:1", "preserve_host": True}
    child = {"name": "observer", "argv": ["a", "b"], "env": {"C": "d"}}
    config = Config.from_json(json.dumps({**LEAST, "routes": [route], "children": [child]}))
    assert config.routes[0].preserve_host
    assert config.children[0].argv == ("a", "b")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "missing"),
        (json.dumps({**LEAST, "lisen": 1}), "unknown key lisen"),
        (json.dumps({**LEAST, "routes": [{"listen": "x", "upstream": "http://h"}]}), "'x' is not an address"),
        (json.dumps({**LEAST, "routes": [{"listen": "h:1", "upstream": "h"}]}), "'h' is not an upstream"),
        (json.dumps({**LEAST, "children": [{"nam": "x"}]}), "unknown key nam"),
    ],
)
def test_bad_configurations(text, reason):
    with pytest.raises(ConfigError, match=reason):
        Config.from_json(text)

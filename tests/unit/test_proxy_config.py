"""What the environment says reaches the proxy: each variable of its limits, under the name that the proxy knows."""

from __future__ import annotations

import json

import pytest

from sidecar.proxy.config import Config
from sidecar.proxy_config import proxy_config
from sidecar.settings import SettingsError, load_settings

LIMITS = {
    "MAX_HEAD_BYTES": ("128KiB", "head_bytes_max", 131_072),
    "MAX_HEADERS": ("300", "fields_max", 300),
    "MAX_CONNECTIONS": ("99", "connections_max", 99),
    "HEADER_TIMEOUT_SECONDS": ("7", "header_seconds", 7.0),
    "IDLE_TIMEOUT_SECONDS": ("8.5", "idle_seconds", 8.5),
    "CONNECT_TIMEOUT_SECONDS": ("3", "connect_seconds", 3.0),
    "UPSTREAM_CONNECTIONS": ("12", "upstream_connections_max", 12),
    "UPSTREAM_IDLE_SECONDS": ("20", "upstream_idle_seconds", 20.0),
    "UPSTREAM_DNS_SECONDS": ("0", "upstream_dns_seconds", 0.0),
    "SOCKET_MODE": ("0600", "socket_mode", 0o600),
    "TLS_CERT_FILE": ("/a.crt", "tls_cert_file", "/a.crt"),
    "TLS_KEY_FILE": ("/a.key", "tls_key_file", "/a.key"),
    "UPSTREAM_CA_FILE": ("/ca.pem", "upstream_ca_file", "/ca.pem"),
    "UPSTREAM_CERT_FILE": ("/b.crt", "upstream_cert_file", "/b.crt"),
    "UPSTREAM_KEY_FILE": ("/b.key", "upstream_key_file", "/b.key"),
    "DRAIN_SECONDS": ("2", "drain_seconds", 2.0),
    "QUEUE_BYTES": ("2MiB", "queue_bytes", 2 << 20),
    "CAPTURE_BODY_BYTES": ("1MiB", "capture_body_bytes", 1 << 20),
}


def configured(**environ: str) -> Config:
    given = {"SIDECAR_UPSTREAM": "http://127.0.0.1:1"} | {f"SIDECAR_{name}": text for name, text in environ.items()}
    return Config.from_json(json.dumps(proxy_config(load_settings(given)[0])))


def test_every_variable_arrives():
    config = configured(**{name: text for name, (text, _, _) in LIMITS.items()})
    assert {key: getattr(config, key) for _, key, _ in LIMITS.values()} == {
        key: want for _, key, want in LIMITS.values()
    }


def test_the_defaults_are_the_same_on_both_sides():
    """Whoever starts the proxy without the settings (tests, benchmarks) gets what users get."""
    config, bare = configured(), Config("/r", "h:1", "/o")
    for _, key, _ in LIMITS.values():
        assert getattr(config, key) == getattr(bare, key), key


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"MAX_HEAD_BYTES": "2MiB"}, "SIDECAR_MAX_HEAD_BYTES"),
        ({"MAX_CONNECTIONS": "0"}, "SIDECAR_MAX_CONNECTIONS"),
        ({"HEADER_TIMEOUT_SECONDS": "0"}, "SIDECAR_HEADER_TIMEOUT_SECONDS"),
        ({"SOCKET_MODE": "rw-rw----"}, "SIDECAR_SOCKET_MODE: must be three octal digits"),
        ({"TLS_KEY_FILE": "/a.key"}, "SIDECAR_TLS_KEY_FILE: is of no use without SIDECAR_TLS_CERT_FILE"),
        ({"UPSTREAM_KEY_FILE": "/a.key"}, "SIDECAR_UPSTREAM_KEY_FILE: is of no use without SIDECAR_UPSTREAM_CERT_FILE"),
    ],
)
def test_what_cannot_be_is_refused(environ, reason):
    with pytest.raises(SettingsError, match=reason):
        configured(**environ)

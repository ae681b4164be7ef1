"""What the proxy process is told: one JSON document in argv[1], made and validated by `sidecar run`.

Checked here again only as far as the types go: a mistake in it is a programming error of the one who starts the proxy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit


class ConfigError(ValueError):
    """The configuration cannot be used; the text says which key, and why."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or connect: host and port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """`127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`, `unix:/path`; raises ConfigError."""
        if text.startswith("unix:"):
            return cls(path=text.removeprefix("unix:"))
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdecimal() or int(port) > 65_535:
            raise ConfigError(f"{text!r} is not an address: write host:port, [::1]:port or unix:/path")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """An origin: where requests go, and the Host that it is called by."""

    address: Address
    authority: str
    tls: bool = False

    @classmethod
    def parse(cls, url: str) -> Self:
        """`http://host:port`, `https://host`, `unix:/path`; raises ConfigError."""
        if url.startswith("unix:"):
            return cls(Address.parse(url), "localhost")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"{url!r} is not an upstream: {error}") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ConfigError(f"{url!r} is not an upstream: write http://host:port or https://host, no path")
        tls = parts.scheme == "https"
        authority = parts.netloc.rpartition("@")[2]
        if port == (443 if tls else 80):
            authority = authority.rpartition(":")[0]
        return cls(Address(parts.hostname, port or (443 if tls else 80)), authority, tls)


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """One listener and where its requests go."""

    listen: str
    upstream: str
    preserve_host: bool = False


@dataclass(frozen=True, slots=True)
class ChildConfig:
    """A process that the proxy starts, watches and restarts; `env` is added to the proxy's own."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Config:
    """The whole document. Without `queue_path` nothing is copied (benchmarks compare with that).

    What the limits mean, and their defaults for users, stands with the settings that they are made of.
    """

    runtime_dir: str
    admin_listen: str
    observer_socket: str
    routes: tuple[RouteConfig, ...] = ()
    children: tuple[ChildConfig, ...] = ()
    queue_path: str = ""
    queue_bytes: int = 32 << 20
    capture_body_bytes: int = 8 << 20
    drain_seconds: float = 25.0
    tls_cert_file: str = ""
    tls_key_file: str = ""
    socket_mode: int = 0o660
    head_bytes_max: int = 65_536
    fields_max: int = 200
    connections_max: int = 8192
    header_seconds: float = 30.0
    idle_seconds: float = 300.0
    upstream_ca_file: str = ""
    upstream_cert_file: str = ""
    upstream_key_file: str = ""
    connect_seconds: float = 10.0
    upstream_connections_max: int = 4096
    upstream_idle_seconds: float = 55.0
    upstream_dns_seconds: float = 30.0
    mode: str = "live"
    lock_fd: int = -1  # the open file whose lock this process holds until it ends; its children must not
    log_format: str = "json"
    log_level: str = "info"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The configuration in `text`; raises ConfigError naming what is missing, unknown or malformed."""
        try:
            document = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"the configuration is not JSON: {error}") from None
        if not isinstance(document, dict):
            raise ConfigError("the configuration is not a JSON object")
        values: dict[str, Any] = dict(document)
        values["routes"] = tuple(_make(RouteConfig, "routes", item) for item in document.get("routes", ()))
        values["children"] = tuple(
            _make(ChildConfig, "children", {**item, "argv": tuple(item.get("argv", ()))})
            for item in document.get("children", ())
        )
        config = _make(cls, "the configuration", values)
        for route in config.routes:
            Address.parse(route.listen)
            Upstream.parse(route.upstream)
        Address.parse(config.admin_listen)
        return config


_T = TypeVar("_T")


def _make(kind: type[_T], where: str, values: Mapping[str, Any]) -> _T:
    known = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - known):
        raise ConfigError(f"{where}: unknown key {', '.join(unknown)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from None

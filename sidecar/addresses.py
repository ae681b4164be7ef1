"""Listen addresses and upstream origins as users write them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: host and port, or `unix:/path` (then `port` is 0 and `host` is the path with its prefix)."""

    host: str
    port: int

    def __str__(self) -> str:
        if self.is_unix:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_unix(self) -> bool:
        """A Unix socket rather than a TCP port."""
        return self.host.startswith("unix:")

    @property
    def is_loopback(self) -> bool:
        """Only this machine (in a pod: only this pod) can reach it."""
        if self.is_unix or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_wildcard(self) -> bool:
        """Every address of this machine."""
        return self.host in {"0.0.0.0", "::"}


@dataclass(frozen=True, slots=True)
class Origin:
    """An upstream: scheme, host, port; no path, since request targets go through as they are."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return f"{self.scheme}://{host}" + ("" if self.port == default else f":{self.port}")

    def is_at(self, address: Address) -> bool:
        """Whether this origin is what listens at `address`, as far as the names alone can tell."""
        if address.is_unix or self.port != address.port:
            return False
        here = Address(self.host, self.port)
        return self.host == address.host or (here.is_loopback and (address.is_loopback or address.is_wildcard))


def parse_address(text: str) -> Address:
    """`127.0.0.1:8080`, `[::1]:8080`, `localhost:0`, `unix:/run/agent.sock`; raises ValueError saying what to write."""
    if text.startswith("unix:/"):
        if len(text) - len("unix:") > 100:
            raise ValueError("is too long for a Unix socket: at most 100 characters")
        return Address(text, 0)
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(\d{1,5})", text)
    if match is None or int(match[2]) > 65535:
        raise ValueError("must be host:port, for example 127.0.0.1:8080, or unix:/path")
    return Address(match[1].strip("[]"), int(match[2]))


def parse_origin(text: str) -> Origin:
    """`http://host:port`, `https://host`; raises ValueError saying what to write."""
    match = re.fullmatch(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::(\d{1,5}))?(/[^@]*)?", text)
    if match is None or int(match[3] or 0) > 65535:
        raise ValueError("must be http://host:port or https://host")
    if match[4] not in {None, "/"}:
        raise ValueError("must have no path: the agent's own base URL keeps it, for example http://127.0.0.1:8080/v1")
    return Origin(match[1], match[2].strip("[]"), int(match[3] or (443 if match[1] == "https" else 80)))

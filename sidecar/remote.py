"""Where the admin API of a sidecar and the billing API are, for commands that ask them: address and token.

An option comes first, then the environment, as the sidecar's own settings name it, then the default.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from sidecar.addresses import Address, parse_address
from sidecar.billing.address import ADDRESS_FILE

ADMIN_DEFAULT = "127.0.0.1:8090"
BILLING_DEFAULT = "http://127.0.0.1:8095"
EMBEDDED = "embedded"


class RemoteError(ValueError):
    """An address or a token that cannot be used; the message says what to write."""


@dataclass(frozen=True, slots=True)
class Remote:
    """`url` is `http://…`, `https://…` or `unix:/path`; `local` when no proxy may stand before it."""

    url: str
    token: str | None
    local: bool = False

    def client(self, timeout_seconds: float) -> httpx.Client:
        """A client of it; raises RemoteError."""
        transport = httpx.HTTPTransport(uds=self._path) if self._path else None
        return httpx.Client(transport=transport, timeout=timeout_seconds, **self._options())

    def async_client(self, timeout_seconds: float) -> httpx.AsyncClient:
        """Likewise."""
        transport = httpx.AsyncHTTPTransport(uds=self._path) if self._path else None
        return httpx.AsyncClient(transport=transport, timeout=timeout_seconds, **self._options())

    @property
    def _path(self) -> str | None:
        return self.url.removeprefix("unix:") if self.url.startswith("unix:") else None

    def _options(self) -> dict[str, Any]:
        base_url = _parsed("http://localhost" if self._path else self.url)
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise RemoteError("the token has characters that no HTTP header can carry")
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        # Not trust_env=False: that would set aside SSL_CERT_FILE, too.
        unproxied = dict.fromkeys(("http://", "https://")) if self.local else {}
        return {"base_url": base_url, "headers": headers, "mounts": unproxied}


def admin(address: str | None) -> Remote:
    """A running sidecar's admin API; raises RemoteError."""
    text = address or os.environ.get("SIDECAR_ADMIN_LISTEN") or ADMIN_DEFAULT
    try:
        parsed = parse_address(text.removeprefix("http://").rstrip("/"))
    except ValueError as error:
        raise RemoteError(f"the admin address {_without_credentials(text)!r} {error}") from None
    token = read_token("SIDECAR_ADMIN_TOKEN")
    if parsed.is_unix:
        return Remote(parsed.host, token, local=True)
    if parsed.port == 0:
        raise RemoteError(f"the admin address {text} is a port that the system chose: name the real one with --admin")
    # An address that means "all of this machine's" is reached by loopback.
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(parsed.host, str(parsed).rpartition(":")[0])
    return Remote(f"http://{host}:{parsed.port}", token, local=parsed.is_loopback or parsed.is_wildcard)


def billing(url: str | None) -> Remote:
    """The billing API; when nothing names one, where an embedded one has said that it listens. Raises RemoteError."""
    text = url or os.environ.get("SIDECAR_BILLING_URL") or EMBEDDED
    token = read_token("SIDECAR_BILLING_TOKEN")
    if text == EMBEDDED:
        return Remote(_embedded(), token, local=True)
    if text.startswith("unix:/"):
        return Remote(text, token, local=True)
    if "@" in text:  # as the sidecar's own setting: HTTP would send it in place of the token
        raise RemoteError(
            f"{_without_credentials(text)!r} has a user or a password: give the token in SIDECAR_BILLING_TOKEN instead"
        )
    if not text.startswith(("http://", "https://")):
        raise RemoteError(f"{text!r} is no URL of a billing API: write one like {BILLING_DEFAULT}")
    return Remote(text.rstrip("/"), token, local=Address(_parsed(text).host, 0).is_loopback)


def _parsed(url: str) -> httpx.URL:
    try:
        return httpx.URL(url)
    except httpx.InvalidURL as error:
        raise RemoteError(f"{url!r} cannot be asked: {error}") from None


def _without_credentials(text: str) -> str:
    """An address as an error may show it, wherever in it the password stands."""
    return re.sub(r"^(\w+://)?.*@", r"\1***@", text, flags=re.DOTALL)


def _embedded() -> str:
    note = Path(os.environ.get("SIDECAR_DATA_DIR") or "./.sidecar") / ADDRESS_FILE
    try:
        address: str = json.loads(note.read_text(encoding="utf-8"))["address"]
    except (OSError, ValueError, LookupError):
        return BILLING_DEFAULT
    return address if address.startswith("unix:") else f"http://{address}"


def read_token(name: str) -> str | None:
    """A bearer token from the variable `name`, or from the file that `name`_FILE names; raises RemoteError."""
    path = os.environ.get(f"{name}_FILE")
    if not path:
        return os.environ.get(name) or None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise RemoteError(f"{name}_FILE: {path} is no text") from None
    except OSError as error:
        raise RemoteError(f"{name}_FILE: {path} cannot be read: {error.strerror}") from None

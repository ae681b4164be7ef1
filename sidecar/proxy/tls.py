"""TLS on both sides: verified and resumed towards origins, offered to clients; renewed when its files change."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

Signature = tuple[tuple[int, int, int] | None, ...]


class RenewedContext(ssl.SSLContext):
    """A context whose certificates can be exchanged while it is in use: each new connection takes the latest.

    Changing a context in place is not safe in the middle of handshakes, and one that was half changed (a new
    certificate beside the old key) would serve nobody; so each version is a context of its own, `latest`.
    """

    latest: ssl.SSLContext

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """As SSLContext.wrap_bio, by the latest version."""
        return self.latest.wrap_bio(*args, **kwargs)

    def renew(self, latest: ssl.SSLContext) -> None:
        """Connections from here on use `latest`."""
        self.latest = latest


class ResumingContext(RenewedContext):
    """A client context for one origin that offers the last session again, which spares a round trip and a signature.

    asyncio has no parameter for a session, so it is put in where the event loop makes its TLS object.
    """

    session: ssl.SSLSession | None = None

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """As SSLContext.wrap_bio, with the session to resume."""
        if self.session is not None:
            kwargs["session"] = self.session
        return super().wrap_bio(*args, **kwargs)

    def remember(self, tls_object: ssl.SSLObject | None) -> None:
        """Keep the session of a connection that has served: TLS 1.3 tickets arrive after the handshake."""
        if tls_object is not None and tls_object.context is self.latest and tls_object.session is not None:
            self.session = tls_object.session

    def renew(self, latest: ssl.SSLContext) -> None:
        """A session belongs to the context that it was made with."""
        self.session = None
        super().renew(latest)


class TlsFiles:
    """PEM files, and the context that is made of them: again each time that they have changed."""

    def __init__(self, paths: tuple[str, ...], make: Callable[[], ssl.SSLContext], context: RenewedContext) -> None:
        """Raises OSError or ssl.SSLError when a file cannot be read or used; `make` reads them."""
        self.paths = tuple(path for path in paths if path)
        self._make = make
        self._seen = self._signature()
        self.context = context
        context.renew(make())

    async def follow(self) -> bool:
        """Take up what has changed; returns whether something had.

        Raises OSError or ssl.SSLError, once for each change, when the files cannot be used; then the former stay in
        use. Reading is done in a thread: the files may lie on a network.
        """
        loop = asyncio.get_running_loop()
        signature = await loop.run_in_executor(None, self._signature)
        if signature == self._seen:
            return False
        self._seen = signature
        self.context.renew(await loop.run_in_executor(None, self._make))
        return True

    def _signature(self) -> Signature:
        return tuple(_file_signature(path) for path in self.paths)


def _file_signature(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def client_files(ca_file: str = "", cert_file: str = "", key_file: str = "") -> TlsFiles:
    """What origins are met with: the authorities to trust (PEM; none: the system's), and a certificate of our own.

    Raises OSError or ssl.SSLError when a file cannot be used.
    """

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if ca_file:
            context.load_verify_locations(ca_file)
        else:
            context.load_default_certs()
        if cert_file:
            context.load_cert_chain(cert_file, key_file or None, password=_no_password)
        context.set_alpn_protocols(["http/1.1"])
        return context

    return TlsFiles((ca_file, cert_file, key_file), make, ResumingContext(ssl.PROTOCOL_TLS_CLIENT))


def server_files(cert_file: str, key_file: str = "") -> TlsFiles:
    """What clients are met with: a certificate with its chain, and its key (or both in one file).

    Raises OSError or ssl.SSLError when a file cannot be used.
    """

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(cert_file, key_file or None, password=_no_password)
        context.set_alpn_protocols(["http/1.1"])
        return context

    return TlsFiles((cert_file, key_file), make, RenewedContext(ssl.PROTOCOL_TLS_SERVER))


def tls_reason(error: OSError) -> str:
    """In a few words, for a log line or an answer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return str(error)


def _no_password() -> bytes:
    """Instead of asking on the terminal: a key with a passphrase is refused."""
    return b""

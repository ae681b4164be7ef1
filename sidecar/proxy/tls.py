"""TLS on both sides: verified and resumed towards origins, offered to clients; renewed when its files change."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

from sidecar.proxy.tls_transport import Wrap

Signature = tuple[tuple[int, int, int] | None, ...]


class RenewedContext:
    """Makes the TLS objects of connections, each by the `latest` version of a context.

    Changing a context in place is not safe in the middle of handshakes, and one that was half changed (a new
    certificate beside the old key) would serve nobody; so each version is a context of its own. Towards an origin the
    last session is offered again, which spares a round trip and a signature.
    """

    def __init__(self, latest: ssl.SSLContext) -> None:
        self.latest = latest
        self._session: ssl.SSLSession | None = None

    def renew(self, latest: ssl.SSLContext) -> None:
        """Connections from here on use `latest`."""
        self.latest = latest
        self._session = None  # it belongs to the context that it was made with

    def to_client(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """The TLS object of a connection from a client."""
        return self.latest.wrap_bio(incoming, outgoing, server_side=True)

    def to_origin(self, host: str) -> Wrap:
        """What makes the TLS object of a connection to the origin of this name."""

        def wrap(incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
            return self.latest.wrap_bio(incoming, outgoing, server_hostname=host, session=self._session)

        return wrap

    def remember(self, tls_object: ssl.SSLObject | None) -> None:
        """Keep the session of a connection that has served: TLS 1.3 tickets arrive after the handshake."""
        if tls_object is not None and tls_object.context is self.latest and tls_object.session is not None:
            self._session = tls_object.session


class TlsFiles:
    """PEM files, and the context that is made of them: again each time that they have changed."""

    def __init__(self, paths: tuple[str, ...], make: Callable[[], ssl.SSLContext]) -> None:
        """Raises OSError or ssl.SSLError when a file cannot be read or used; `make` reads them."""
        self.paths = tuple(path for path in paths if path)
        self._make = make
        self._seen = self._signature()
        self.context = RenewedContext(make())

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
        context = _context(ssl.PROTOCOL_TLS_CLIENT)
        if ca_file:
            context.load_verify_locations(ca_file)
        else:
            context.load_default_certs()
        if cert_file:
            context.load_cert_chain(cert_file, key_file or None, password=_no_password)
        return context

    return TlsFiles((ca_file, cert_file, key_file), make)


def server_files(cert_file: str, key_file: str = "") -> TlsFiles:
    """What clients are met with: a certificate with its chain, and its key (or both in one file).

    Raises OSError or ssl.SSLError when a file cannot be used.
    """

    def make() -> ssl.SSLContext:
        context = _context(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert_file, key_file or None, password=_no_password)
        return context

    return TlsFiles((cert_file, key_file), make)


def _context(protocol: int) -> ssl.SSLContext:
    """TLS 1.2 and later, HTTP/1.1, and no renegotiation: nginx, Envoy and Go's clients refuse it as well."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


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

"""Where clients arrive: TCP addresses, with TLS or without, and Unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sidecar.proxy.client import ClientSocket
from sidecar.proxy.config import Address
from sidecar.proxy.sockets import probe
from sidecar.proxy.tls import RenewedContext
from sidecar.proxy.tls_transport import TlsTransport

_BACKLOG: Final = 1024


class StartError(Exception):
    """The proxy cannot start; the text says what to change."""


class Listener:
    """One listening address. `address` is where it really listens: the port that was taken for port 0."""

    def __init__(self, server: asyncio.AbstractServer, address: Address) -> None:
        self.address = address
        self._server = server
        self._inode = _inode(address.path) if address.path else 0

    def close(self) -> None:
        """Accept no more; a socket file of ours goes away (not that of another process at the same path)."""
        self._server.close()
        path = self.address.path
        if path and self._inode and _inode(path) == self._inode:
            with contextlib.suppress(OSError):
                Path(path).unlink()
            self._inode = 0


async def listen(
    factory: Callable[[], ClientSocket],
    address: Address,
    *,
    socket_mode: int,
    tls: RenewedContext | None = None,
    handshake_seconds: float = 30.0,
) -> Listener:
    """Listen; raises StartError. `socket_mode` is for Unix sockets, which speak without TLS."""
    loop = asyncio.get_running_loop()
    try:
        if address.path:
            _remove_stale_socket(address.path)
            before = os.umask(0o777 & ~socket_mode)  # at once: between bind and chmod anyone could connect
            try:
                return Listener(await loop.create_unix_server(factory, address.path, backlog=_BACKLOG), address)
            finally:
                os.umask(before)
        made = factory if tls is None else _through_tls(factory, tls, handshake_seconds)
        server = await loop.create_server(made, sock=_bind(address), backlog=_BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise StartError(f"cannot listen on {address}: {reason}") from None
    name = server.sockets[0].getsockname()
    return Listener(server, Address(name[0], name[1]))


def _through_tls(
    factory: Callable[[], ClientSocket], tls: RenewedContext, handshake_seconds: float
) -> Callable[[], asyncio.Protocol]:
    loop = asyncio.get_running_loop()

    def made() -> TlsTransport:
        client = factory()
        return TlsTransport(tls.to_client, client, loop, handshake_seconds, client.accepted)

    return made


def _bind(address: Address) -> socket.socket:
    """A bound socket; `[::]` takes IPv4 as well, as people mean who write it."""
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, where = min(found, key=lambda entry: entry[0] != socket.AF_INET)  # localhost: 127.0.0.1
    sock = socket.create_server(where[:2], family=family, dualstack_ipv6=address.host == "::")
    probe(sock)
    return sock


def _inode(path: str) -> int:
    try:
        return Path(path).stat().st_ino
    except OSError:
        return 0


def _remove_stale_socket(path: str) -> None:
    """Remove the socket file of a process that is gone; one that still listens is an error."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            raise StartError(f"cannot listen on unix:{path}: there is something else at this path")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except OSError:
                Path(path).unlink()
                return
        raise StartError(f"cannot listen on unix:{path}: Address already in use")

"""The proxy process put together: listeners, queue, children; its start, its drain, its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from sidecar.proxy.admin import AdminConnection
from sidecar.proxy.children import Children
from sidecar.proxy.config import Address, Config, Upstream
from sidecar.proxy.health import Health
from sidecar.proxy.limits import TICK_SECONDS, Timeouts, connections_allowed, files_wanted, raise_file_limit, sweep
from sidecar.proxy.listeners import Listener, StartError, listen
from sidecar.proxy.log import Log
from sidecar.proxy.relay import ClientConnection
from sidecar.proxy.route import Route, no_copy
from sidecar.proxy.tls import TlsFiles, server_files, tls_reason
from sidecar.proxy.upstream import Origin
from sidecar.wire.framing import Limits
from sidecar.wire.lag import watch_loop
from sidecar.wire.ring import RingWriter
from sidecar.wire.status import STATUS_BYTES, Slot, StatusPage

_POOL_TICK_SECONDS: Final = 1.0
_FILES_TICK_SECONDS: Final = 2.0
_ADMIN_CONNECTIONS_MAX: Final = 256
_CHILDREN_SECONDS_MIN: Final = 5.0


class Server:
    """One proxy process. `run()` returns its exit code."""

    def __init__(self, config: Config, log: Log) -> None:
        self._config = config
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._ring: RingWriter | None = None
        self._listeners: list[Listener] = []
        self._limits = Limits(head_bytes_max=config.head_bytes_max, fields_max=config.fields_max)
        self._connections_max = config.connections_max
        self._routes: list[Route] = []
        self._origins: dict[Upstream, Origin] = {}  # routes to the same upstream share its connections, and its limit
        self._tls_files: set[TlsFiles] = set()
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT, drain, stop the children."""
        self._fit_into_file_limit()
        status = self._open_queue()
        children = Children(self._config.children, status, self._log)
        try:
            await self._listen(status, children)
            self._handle_signals(children)
            await children.start()
            gc.collect()
            gc.freeze()  # what is there now stays; the collector need not walk it again
            ticks = [self._loop.create_task(tick) for tick in self._ticks(status)]
            await self._stop.wait()
            await self._drain(children)
            for tick in ticks:  # not before: clients that are slow to leave have bounds in a drain too
                tick.cancel()
        finally:
            for listener in self._listeners:
                listener.close()
            if self._ring is not None:
                self._ring.close()
        self._log.info("proxy_stopped")
        return 0

    def _open_queue(self) -> StatusPage:
        config = self._config
        if not config.queue_path:
            return StatusPage(bytearray(STATUS_BYTES))
        self._ring = RingWriter(config.queue_path, config.queue_bytes, body_bytes_max=config.capture_body_bytes)
        for notice in self._ring.notices:
            self._log.warning("queue_notice", notice=notice)
        status = self._ring.status
        status.set(Slot.PROXY_PID, os.getpid())
        status.set(Slot.PROXY_STARTED_MS, int(time.time() * 1000))
        return status

    def _fit_into_file_limit(self) -> None:
        """Better to refuse a connection with an answer than to run out of files in the middle of others' requests."""
        config, files = self._config, raise_file_limit()
        origins = len({Upstream.parse(entry.upstream) for entry in config.routes})
        self._connections_max = connections_allowed(
            config.connections_max, config.upstream_connections_max, origins, files
        )
        if self._connections_max < config.connections_max:
            self._log.warning(
                "file_limit_low",
                limit=files,
                wanted=files_wanted(config.connections_max, config.upstream_connections_max, origins),
                connections_max=self._connections_max,
                advice="raise the hard limit of open files (ulimit -Hn), or lower SIDECAR_MAX_CONNECTIONS",
            )

    async def _listen(self, status: StatusPage, children: Children) -> None:
        tls = self._server_tls()
        listening: dict[str, Any] = {"pid": os.getpid(), "admin": "", "routes": []}
        for index, entry in enumerate(self._config.routes):
            upstream = Upstream.parse(entry.upstream)
            origin = self._origins.get(upstream)
            if origin is None:
                origin = self._origins[upstream] = self._origin(upstream, status)
            route = Route(
                index,
                origin,
                status,
                authority=None if entry.preserve_host else upstream.authority.encode("latin-1"),
                copy=self._ring.copy if self._ring is not None else no_copy,
                limits=self._limits,
                connections_max=self._connections_max,
            )
            address = await self._open(route, Address.parse(entry.listen), tls)
            listening["routes"].append({"listen": address, "upstream": entry.upstream})
        admin = Route(
            len(self._config.routes),
            Origin(Upstream.parse(f"unix:{self._config.observer_socket}"), StatusPage(bytearray(STATUS_BYTES))),
            status,
            local=self._health(status, children).answer,
            counted=False,
            connections_max=_ADMIN_CONNECTIONS_MAX,
        )
        listening["admin"] = await self._open(admin, Address.parse(self._config.admin_listen), kind=AdminConnection)
        _write_atomically(Path(self._config.runtime_dir, "listening.json"), json.dumps(listening))
        self._log.info("listening", **listening)

    def _origin(self, upstream: Upstream, status: StatusPage) -> Origin:
        config = self._config
        try:
            return Origin(
                upstream,
                status,
                ca_file=config.upstream_ca_file,
                cert_file=config.upstream_cert_file,
                key_file=config.upstream_key_file,
                limits=self._limits,
                connect_seconds=config.connect_seconds,
                connections_max=config.upstream_connections_max,
                idle_seconds=config.upstream_idle_seconds,
            )
        except OSError as error:  # of which ssl.SSLError is one
            paths = filter(None, (config.upstream_ca_file, config.upstream_cert_file, config.upstream_key_file))
            raise StartError(f"{', '.join(paths)} cannot be used for upstreams: {tls_reason(error)}") from None

    def _server_tls(self) -> TlsFiles | None:
        config = self._config
        if not config.tls_cert_file:
            return None
        try:
            return server_files(config.tls_cert_file, config.tls_key_file)
        except OSError as error:
            paths = ", ".join(filter(None, (config.tls_cert_file, config.tls_key_file)))
            raise StartError(f"{paths} cannot be used for TLS: {tls_reason(error)}") from None

    def _health(self, status: StatusPage, children: Children) -> Health:
        ring = self._ring
        observer = children.get("observer")
        return Health(
            status,
            self._config.mode,
            capacity_bytes=ring.capacity if ring is not None else 0,
            used_bytes=lambda: ring.unread_bytes if ring is not None else 0,
            observer_alive=lambda: observer.alive if observer is not None else None,
        )

    async def _open(
        self,
        route: Route,
        address: Address,
        tls: TlsFiles | None = None,
        *,
        kind: type[ClientConnection] = ClientConnection,
    ) -> str:
        """Listen; returns the address with the port that was taken for port 0."""
        loop, config = self._loop, self._config

        def connection() -> ClientConnection:
            return kind(route, loop)

        listener = await listen(
            connection,
            address,
            socket_mode=config.socket_mode,
            tls=tls.context if tls is not None else None,
            handshake_seconds=config.header_seconds,
        )
        if tls is not None:
            self._tls_files.add(tls)
        if route.origin.tls_files is not None:
            self._tls_files.add(route.origin.tls_files)
        self._listeners.append(listener)
        self._routes.append(route)
        return str(listener.address)

    def _handle_signals(self, children: Children) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)

        def reload() -> None:
            observer = children.get("observer")
            if observer is not None:
                observer.signal(signal.SIGHUP)

        self._loop.add_signal_handler(signal.SIGHUP, reload)

    def _ticks(self, status: StatusPage) -> list[Coroutine[Any, Any, None]]:
        """What is done now and then, each at its own pace."""
        dns_seconds = self._config.upstream_dns_seconds
        ticks = [self._tick_connections(status), self._tick_pools(), watch_loop(status, Slot.LOOP_LAG_2MS)]
        if dns_seconds:
            ticks += [self._follow_name(origin, dns_seconds) for origin in self._origins.values()]
        if self._tls_files:
            ticks.append(self._follow_files(status))
        return ticks

    async def _tick_connections(self, status: StatusPage) -> None:
        timeouts = Timeouts(self._config.header_seconds, self._config.idle_seconds)
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for route in self._routes:
                await sweep(list(route.connections), timeouts, status)

    async def _tick_pools(self) -> None:
        while True:
            await asyncio.sleep(_POOL_TICK_SECONDS)
            now = self._loop.time()
            for route in self._routes:  # the admin address's among them
                route.origin.close_idle(now)
            if self._ring is not None:
                self._ring.settle()  # what waits for room in the queue

    async def _follow_name(self, origin: Origin, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await origin.follow_name()

    async def _follow_files(self, status: StatusPage) -> None:
        """Certificates that were renewed: new connections use them, those that are open go on as they are."""
        while True:
            await asyncio.sleep(_FILES_TICK_SECONDS)
            for files in self._tls_files:
                try:
                    if await files.follow():
                        status.add(Slot.CERTIFICATE_RELOADS)
                        self._log.info("certificates_reloaded", files=list(files.paths))
                except OSError as error:  # of which ssl.SSLError is one
                    status.add(Slot.CERTIFICATE_FAILURES)
                    self._log.error("certificates_refused", files=list(files.paths), reason=tls_reason(error))

    async def _drain(self, children: Children) -> None:
        """Open exchanges finish within drain_seconds; what is left of them, at least 5, is the observer's."""
        until = self._loop.time() + self._config.drain_seconds
        self._log.info("draining", seconds=self._config.drain_seconds)
        for listener in self._listeners:
            listener.close()
        for route in self._routes:
            route.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await asyncio.gather(*(route.drained() for route in self._routes))
        for route in self._routes:
            route.abort()
            route.origin.close()
        await asyncio.sleep(0)  # connection_lost callbacks end the copies
        await children.stop(max(until, self._loop.time() + _CHILDREN_SECONDS_MIN))


def _write_atomically(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)

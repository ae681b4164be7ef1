"""What the proxy process is told: the settings, validated, as plain values (`sidecar.proxy.config` reads them)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sidecar import logs, preflight
from sidecar.settings import TLS_FILES, Settings
from sidecar.settings_types import EMBEDDED


def proxy_config(settings: Settings) -> dict[str, Any]:
    """What the proxy process is told: plain values, no secrets (it stands in the process list)."""
    runtime = preflight.runtime_dir(settings)
    config: dict[str, Any] = {
        "routes": [
            {"listen": str(route.listen), "upstream": str(route.upstream), "preserve_host": settings.preserve_host}
            for route in settings.all_routes
        ],
        "admin_listen": str(settings.admin_listen),
        "runtime_dir": str(runtime),
        "observer_socket": str(runtime / "observer.sock"),
        "queue_path": str(runtime / "queue"),
        "queue_bytes": settings.queue_bytes,
        "capture_body_bytes": settings.capture_body_bytes,
        "drain_seconds": settings.drain_seconds,
        "children": _children(settings, runtime),
        "log_format": logs.resolve_format(settings.log_format),
        "log_level": settings.log_level,
        "mode": settings.mode,
    }
    return config | _proxy_limits(settings) | _proxy_files(settings)


def _proxy_limits(settings: Settings) -> dict[str, Any]:
    return {
        "head_bytes_max": settings.max_head_bytes,
        "fields_max": settings.max_headers,
        "connections_max": settings.max_connections,
        "header_seconds": settings.header_timeout_seconds,
        "idle_seconds": settings.idle_timeout_seconds,
        "connect_seconds": settings.connect_timeout_seconds,
        "upstream_connections_max": settings.upstream_connections,
        "upstream_idle_seconds": settings.upstream_idle_seconds,
        "upstream_dns_seconds": settings.upstream_dns_seconds,
        "socket_mode": int(settings.socket_mode, 8),
    }


def _proxy_files(settings: Settings) -> dict[str, str]:
    return {name: str(path) for name in TLS_FILES if (path := getattr(settings, name)) is not None}


def _children(settings: Settings, runtime: Path) -> list[dict[str, Any]]:
    """In the order in which they start; they stop in reverse, so the observer can hand over to the other two."""
    children: list[dict[str, Any]] = []
    if settings.redis_url == EMBEDDED:
        children.append(
            {
                "name": "redis",
                "argv": [
                    *(sys.executable, "-m", "sidecar.embedded.redis"),
                    *(str(settings.data_dir.resolve()), str(runtime / "redis.sock")),
                ],
                "env": {},
            },
        )
    if settings.billing_url == EMBEDDED:
        children.append(
            {
                "name": "billing",
                "argv": [sys.executable, "-m", "sidecar", "billing"],
                "env": {"SIDECAR_DATA_DIR": str(settings.data_dir.resolve())},
            },
        )
    children.append({"name": "observer", "argv": [sys.executable, "-m", "sidecar.app"], "env": {}})
    return children

"""The Redis client for a URL: one server, Sentinel or Cluster; the same commands on each."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.sentinel import Sentinel

CONNECT_TIMEOUT_SECONDS = 2.0
ANSWER_TIMEOUT_SECONDS = 10.0


def connect_redis(url: str, *, embedded_socket: Path | None = None) -> Any:
    """A lazy client: it connects at its first command, so that a Redis that is down never stops a start.

    `redis+sentinel://host:port,host:port/db?master=mymaster` and `redis+cluster://host:port` beside the schemes that
    redis-py knows. Commands are not retried here: the applier and the courier repeat whole operations, which carry ids.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "socket_timeout": ANSWER_TIMEOUT_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": 15,
    }
    if embedded_socket is not None:
        del options["socket_keepalive"]
        return Redis.from_url(f"unix://{embedded_socket}", **options)
    scheme = url.partition("://")[0]
    if scheme == "unix":
        del options["socket_keepalive"]
    if scheme == "redis+cluster":
        return RedisCluster.from_url("redis" + url.removeprefix("redis+cluster"), **options)
    if scheme == "redis+sentinel":
        return _sentinel(url, options)
    return Redis.from_url(url, **options)


def _sentinel(url: str, options: dict[str, Any]) -> Any:
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    nodes = []
    for host in hosts.split(","):
        name, _, port = host.rpartition(":") if ":" in host else (host, "", "26379")
        nodes.append((name.strip("[]"), int(port)))
    query = dict(parse_qsl(parts.query))
    if password:
        options |= {"username": user or None, "password": password}
    database = int(parts.path.strip("/") or query.get("db", "0"))
    sentinel = Sentinel(nodes, socket_timeout=CONNECT_TIMEOUT_SECONDS)  # type: ignore[no-untyped-call]
    return sentinel.master_for(query.get("master", "mymaster"), db=database, **options)


def without_password(url: str) -> str:
    """The URL as logs and `doctor` may show it."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    hidden = parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2], query=urlencode(parse_qsl(parts.query)))
    return urlunsplit(hidden)

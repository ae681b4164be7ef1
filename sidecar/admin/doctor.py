"""`sidecar doctor`: looks at everything the sidecar depends on, from this machine, and says what to change.

It reads the same environment as `sidecar run` and changes nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import ssl
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from redis.exceptions import RedisError

from sidecar import preflight
from sidecar.admin import surroundings
from sidecar.admin.finding import Finding
from sidecar.admin.surroundings import taken
from sidecar.billing.address import ADDRESS_FILE
from sidecar.billing.settings import BillingSettingsError, load_billing_settings
from sidecar.connections import connect_redis, without_password
from sidecar.embedded.redis import server_binary
from sidecar.settings import Settings, SettingsError, load_settings
from sidecar.settings_types import EMBEDDED

TIMEOUT_SECONDS = 5.0
REDIS_VERSION_MIN = (7, 0)


def run(environ: Mapping[str, str]) -> list[Finding]:
    """Check; raises SettingsError when the environment itself is wrong."""
    settings, warnings = load_settings(environ)
    findings = [Finding("settings", "warning", warning) for warning in warnings]
    return findings + asyncio.run(examine(settings, environ))


async def examine(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """Every finding, the checks in parallel, in a fixed order.

    `environ` has the variables of the embedded billing service.
    """
    checks: list[Callable[[Settings], Awaitable[list[Finding]]]] = [
        partial(_settings, environ), _redis, _plan, _upstreams, partial(_billing, environ),
        surroundings.clock, surroundings.ports, _disk, _memory,
    ]  # fmt: skip
    found = await asyncio.gather(*(check(settings) for check in checks))
    return [finding for findings in found for finding in findings]


async def _redis(settings: Settings) -> list[Finding]:
    embedded = None
    shown = without_password(settings.redis_url)
    if settings.redis_url == EMBEDDED:
        embedded = preflight.runtime_dir(settings) / "redis.sock"
        if not embedded.exists():
            return [_embedded_redis()]
    client = connect_redis(settings.redis_url, embedded_socket=embedded)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            info: dict[str, Any] = await client.info()
    except (RedisError, OSError, TimeoutError) as error:
        change = "start it, or correct SIDECAR_REDIS_URL; until then sessions wait in the journal"
        return [Finding("redis", "failed", f"{shown} does not answer: {str(error) or type(error).__name__}", change)]
    finally:
        await client.aclose()
    return judge_redis(shown, info)


def _embedded_redis() -> Finding:
    try:
        binary = server_binary()
    except (RuntimeError, OSError) as error:
        return Finding("redis", "failed", str(error), "give SIDECAR_REDIS_URL")
    return Finding("redis", "ok", f"embedded; `sidecar run` starts {binary.name}")


def judge_redis(shown: str, info: Mapping[str, Any]) -> list[Finding]:
    """Version, persistence and eviction from the answer of INFO (redis.io, commands/info)."""
    findings = []
    version = str(info.get("valkey_version") or info.get("redis_version", "0"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < REDIS_VERSION_MIN:
        wanted = ".".join(map(str, REDIS_VERSION_MIN))
        findings.append(Finding("redis", "failed", f"{shown} is version {version}", f"use {wanted} or newer"))
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        change = "CONFIG SET maxmemory-policy noeviction: any other policy deletes open sessions when memory is short"
        findings.append(Finding("redis", "failed", f"maxmemory-policy is {policy}", change))
    if not int(info.get("aof_enabled", 0)):
        change = "set appendonly yes (appendfsync everysec); without it a restart is rebuilt from the journals alone"
        findings.append(Finding("redis", "failed", "append-only persistence is off", change))
    return findings or [Finding("redis", "ok", f"{shown}, version {version}, noeviction, append-only")]


async def _settings(environ: Mapping[str, str], settings: Settings) -> list[Finding]:
    """What `sidecar run` would refuse at its start, but what the other parts say."""
    _, problems, _ = preflight.examine(settings, environ)
    others = ["SIDECAR_PLAN", "SIDECAR_JOURNAL_HOURS", "SIDECAR_DATA_DIR"]
    others += [] if settings.queue_dir.is_dir() else ["SIDECAR_QUEUE_DIR"]
    refused = [problem for problem in problems if not problem.startswith(tuple(others))]
    findings = [Finding("settings", "failed", problem, "correct that variable") for problem in refused]
    return findings or [Finding("settings", "ok", "every variable can be used")]


async def _plan(settings: Settings) -> list[Finding]:
    try:
        plan = preflight.read_plan(settings)
        preflight.read_candidate(settings)
    except SettingsError as error:
        change = "correct the file; `sidecar plan check FILE` says whether it is fine"
        return [Finding("plan", "failed", problem, change) for problem in error.problems]
    if short := preflight.retention(settings, plan):
        change = "raise SIDECAR_JOURNAL_HOURS, or shorten the plan's times"
        return [Finding("plan", "failed", problem, change) for problem in short]
    where = str(settings.plan) if settings.plan else "built in"
    return [Finding("plan", "ok", f"{plan.name} ({where}), {plan.digest[:19]}…")]


async def _upstreams(settings: Settings) -> list[Finding]:
    if not settings.all_routes:
        return [Finding("upstream", "ok", "none: the intake-only role")]
    return list(await asyncio.gather(*(_upstream(route.upstream, settings) for route in settings.all_routes)))


async def _upstream(origin: Any, settings: Settings) -> Finding:
    context = None
    try:
        if origin.scheme == "https":
            context = ssl.create_default_context(cafile=settings.upstream_ca_file)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            _, writer = await asyncio.open_connection(origin.host, origin.port, ssl=context)
    except (OSError, TimeoutError) as error:
        change = "correct SIDECAR_UPSTREAM, or open the way to it; requests are answered 502 until then"
        return Finding("upstream", "failed", f"{origin} cannot be reached: {error or 'no answer'}", change)
    writer.close()
    return Finding("upstream", "ok", f"{origin} can be reached")


async def _billing(environ: Mapping[str, str], settings: Settings) -> list[Finding]:
    if settings.billing_url == EMBEDDED:
        return [_embedded_billing(environ, settings)]
    token = settings.billing_token
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
    try:
        # Directly, whatever proxy the environment names, as outcomes are delivered.
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            # Nothing is posted: an empty body is refused by every implementation, and the way it is refused tells.
            answer = await client.post(f"{settings.billing_url}/v1/outcomes", content=b"", headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        change = "start it, or correct SIDECAR_BILLING_URL; until then outcomes wait in the outbox"
        return [Finding("billing", "failed", f"{settings.billing_url} does not answer: {error}", change)]
    if answer.status_code in {401, 403}:
        change = "give the right SIDECAR_BILLING_TOKEN"
        return [Finding("billing", "failed", f"{settings.billing_url} refuses the token", change)]
    if answer.status_code == 404 or answer.status_code >= 500:
        says = f"{settings.billing_url}/v1/outcomes answers {answer.status_code}"
        return [Finding("billing", "failed", says, "check that SIDECAR_BILLING_URL is the base URL of a billing API")]
    return [Finding("billing", "ok", f"{settings.billing_url} takes outcomes")]


def _embedded_billing(environ: Mapping[str, str], settings: Settings) -> Finding:
    """Whether the service could listen, or does already."""
    try:
        listen = load_billing_settings({**environ, "SIDECAR_DATA_DIR": str(settings.data_dir)}).listen
    except BillingSettingsError:
        return Finding("billing", "failed", "embedded, and cannot start", "correct the variables named under settings")
    if (settings.data_dir / ADDRESS_FILE).exists() or listen.is_unix or taken(listen) != errno.EADDRINUSE:
        return Finding("billing", "ok", "embedded; `sidecar run` starts it")
    change = "stop what listens there, or give another SIDECAR_BILLING_LISTEN"
    return Finding("billing", "failed", f"embedded, and {listen}, where it is to listen, is taken", change)


async def _disk(settings: Settings) -> list[Finding]:
    directory = _existing(settings.data_dir)
    if not directory.is_dir():
        return [Finding("disk", "failed", f"{directory} is a file", "name a directory as SIDECAR_DATA_DIR")]
    if not os.access(directory, os.W_OK):
        return [Finding("disk", "failed", f"{directory} is not writable", "correct SIDECAR_DATA_DIR or its owner")]
    free = shutil.disk_usage(directory).free
    if free < settings.journal_bytes:
        says = f"{_mib(free)} free for a journal of up to {_mib(settings.journal_bytes)}"
        return [Finding("disk", "warning", says, "make room, or lower SIDECAR_JOURNAL_BYTES")]
    return [Finding("disk", "ok", f"{directory}: {_mib(free)} free")]


async def _memory(settings: Settings) -> list[Finding]:
    if not settings.queue_dir.is_dir():
        change = "mount a tmpfs there (in Kubernetes an emptyDir with medium: Memory) or name another SIDECAR_QUEUE_DIR"
        return [Finding("shared memory", "failed", f"{settings.queue_dir} is not a directory", change)]
    findings = []
    kind = preflight.filesystem(settings.queue_dir)
    if kind not in preflight.TMPFS:
        change = "name a tmpfs as SIDECAR_QUEUE_DIR: the queue holds traffic as it is"
        findings.append(Finding("shared memory", "warning", f"{settings.queue_dir} is {kind}, on a disk", change))
    queue = preflight.runtime_dir(settings) / "queue"
    free = shutil.disk_usage(settings.queue_dir).free + (queue.stat().st_size if queue.exists() else 0)
    if free < settings.queue_bytes:
        says = f"{settings.queue_dir} has {_mib(free)} free, the queue needs {_mib(settings.queue_bytes)}"
        findings.append(Finding("shared memory", "failed", says, "lower SIDECAR_QUEUE_BYTES or enlarge the tmpfs"))
    elif free < 2 * settings.queue_bytes:
        says = f"{settings.queue_dir} has {_mib(free)} for the queue and, as large again, streams that run long"
        findings.append(Finding("shared memory", "warning", says, "lower SIDECAR_QUEUE_BYTES or enlarge the tmpfs"))
    return findings or [Finding("shared memory", "ok", f"{settings.queue_dir}: {_mib(free)} free")]


def _existing(path: Path) -> Path:
    resolved = path.resolve()
    return next(parent for parent in (resolved, *resolved.parents) if parent.exists())


def _mib(count: int) -> str:
    return f"{count // 2**20} MiB"

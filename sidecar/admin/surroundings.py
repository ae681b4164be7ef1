"""What `sidecar doctor` looks at on the machine itself: its clock, beside those it works with, and its ports."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
from redis.exceptions import RedisError

from sidecar.addresses import Address
from sidecar.admin.finding import Finding
from sidecar.connections import connect_redis
from sidecar.settings import Settings
from sidecar.settings_types import EMBEDDED

TIMEOUT_SECONDS = 5.0
# Webhooks are refused when they are 5 minutes off; deadlines wait for the mark of the slowest clock.
APART_SECONDS_WARN, APART_SECONDS_MAX = 5.0, 240.0
_CHANGE = "set the clock by NTP (chrony, systemd-timesyncd) on this machine and on that one"


async def clock(settings: Settings) -> list[Finding]:
    """This machine's clock beside those of Redis and of the billing API, where these are elsewhere."""
    apart: dict[str, float] = {}
    if settings.redis_url != EMBEDDED:
        client = connect_redis(settings.redis_url)
        try:
            before = time.time()
            at, micro = await client.time()
            apart["Redis"] = at + micro / 1e6 - (before + time.time()) / 2
        except (RedisError, OSError, TimeoutError):
            pass  # whether it answers is said elsewhere
        finally:
            await client.aclose()
    if settings.billing_url != EMBEDDED:
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as http:
                answer = await http.get(f"{settings.billing_url}/livez")
            said = parsedate_to_datetime(answer.headers["date"]).timestamp() + 0.5  # it has whole seconds
            apart["the billing API"] = said - time.time()
        except (httpx.HTTPError, httpx.InvalidURL, LookupError, ValueError):
            pass
    return judge_clock(apart)


def judge_clock(apart: dict[str, float]) -> list[Finding]:
    """By how many seconds the others' clocks are ahead."""
    findings = []
    for other, seconds in apart.items():
        if abs(seconds) >= APART_SECONDS_WARN:
            way = "behind" if seconds > 0 else "ahead of"
            says = f"this machine's is {abs(seconds):.0f} s {way} that of {other}"
            findings.append(
                Finding("clock", "failed" if abs(seconds) >= APART_SECONDS_MAX else "warning", says, _CHANGE)
            )
    if findings:
        return findings
    beside = f"agrees with {' and '.join(apart)}" if apart else "nothing elsewhere to compare it with"
    return [Finding("clock", "ok", beside)]


async def ports(settings: Settings) -> list[Finding]:
    """Whether the sidecar could listen where it is to, or does already."""
    if held(settings.data_dir):
        return [Finding("ports", "ok", f"a sidecar runs with {settings.data_dir} and has them")]
    wanted = {"SIDECAR_ADMIN_LISTEN": settings.admin_listen}
    name = "SIDECAR_LISTEN" if settings.upstream is not None else "SIDECAR_ROUTES"
    listens = [(name, route.listen) for route in settings.all_routes] + list(wanted.items())
    findings = [finding for variable, address in listens for finding in _port(variable, address)]
    shown = ", ".join(str(address) for _, address in listens)
    return findings or [Finding("ports", "ok", f"{shown}: free")]


def _port(variable: str, address: Address) -> Iterator[Finding]:
    if address.is_unix:
        folder = Path(address.host.removeprefix("unix:")).parent
        if not os.access(folder, os.W_OK | os.X_OK):
            yield Finding("ports", "failed", f"{folder} is no directory to write in", f"correct {variable}")
        return
    match taken(address):
        case None:
            return
        case errno.EADDRINUSE:
            says, change = f"{address} is taken", f"stop what listens there, or give another {variable}"
        case errno.EACCES | errno.EPERM:
            says, change = f"{address} needs a right that this user lacks", f"give a port above 1023 as {variable}"
        case errno.EADDRNOTAVAIL:
            says, change = f"{address.host} is no address of this machine", f"correct {variable}"
        case number:
            says, change = f"{address} cannot be used: {os.strerror(number)}", f"correct {variable}"
    yield Finding("ports", "failed", says, change)


def taken(address: Address) -> int | None:
    """Why one cannot listen there, as an errno; None: one can."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen(1)
    except socket.gaierror:
        return errno.EADDRNOTAVAIL
    except OSError as error:
        return error.errno
    return None


def held(data_dir: Path) -> bool:
    """Whether a sidecar runs with this data directory (see `preflight.hold`)."""
    try:
        with (data_dir / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False

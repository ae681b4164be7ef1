"""`python -m bench.autobahn WSTEST`: the Autobahn fuzzing client's verdicts on a WebSocket server, direct and through.

WSTEST is the program of `autobahntestsuite` 0.8.2, which needs Python 2.7 (PyPI's later version says Python 3 and does
not start there), so that it cannot be a part of the test suite:

    python2.7 -m virtualenv autobahn && autobahn/bin/pip install autobahntestsuite==0.8.2
    python -m bench.autobahn autobahn/bin/wstest

The server is the `websockets` library's; the proxy changes nothing, so what it fails at direct it must fail at through
as well. Whether it answers a good frame before it closes over the bad one behind it is a matter of microseconds, which
Autobahn notes as OK or NON-STRICT; so direct is asked several times, and exit code 1 is for a verdict that direct never
gave, these two taken for one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bench import proxies
from bench.processes import cores

_CASES = ["*"]
# Megabytes in tiny fragments and a thousand messages for each setting of the compression: hours, and nothing new.
_TOO_LONG = ["9.*", "12.2.*", "12.3.*", "12.4.*", "12.5.*", "13.2.*", "13.3.*", "13.4.*", "13.5.*", "13.6.*", "13.7.*"]
_DIRECT = ("direct", "direct again", "direct once more")
_THROUGH = "through"
_AGENTS = (*_DIRECT, _THROUGH)


async def _echo(connection: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            await connection.send(message)


async def _verdicts(wstest: str, cases: list[str], left_out: list[str]) -> dict[str, dict[str, Any]]:
    """By agent and case."""
    async with serve(_echo, "127.0.0.1", 0, max_size=None, ping_interval=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with proxies.sidecar(port, cores()[0], capture=True) as running, tempfile.TemporaryDirectory() as directory:
            ports = {**dict.fromkeys(_DIRECT, port), _THROUGH: running[0]}
            spec = {
                "outdir": directory,
                "servers": [{"agent": agent, "url": f"ws://127.0.0.1:{ports[agent]}"} for agent in _AGENTS],
                "cases": cases,
                "exclude-cases": left_out,
                "exclude-agent-cases": {},
            }
            path = Path(directory, "spec.json")
            await asyncio.to_thread(path.write_text, json.dumps(spec))
            argv = [wstest, "-m", "fuzzingclient", "-s", str(path)]
            client = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.DEVNULL, cwd=directory)
            if await client.wait():
                raise SystemExit(f"{wstest} failed")
            text = await asyncio.to_thread(Path(directory, "index.json").read_text)
            found: dict[str, dict[str, Any]] = json.loads(text)
            return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.autobahn", description=__doc__)
    parser.add_argument("wstest")
    parser.add_argument("--cases", nargs="+", default=_CASES)
    parser.add_argument("--leave-out", nargs="*", default=_TOO_LONG)
    options = parser.parse_args()
    found = asyncio.run(_verdicts(options.wstest, options.cases, options.leave_out))
    through = found[_THROUGH]
    worse, unsteady = [], []
    for case, verdict in sorted(through.items()):
        said = [found[agent][case] for agent in _DIRECT]
        if _essence(verdict) not in [_essence(one) for one in said]:
            worse.append(case)
        elif any(one["behavior"] != verdict["behavior"] for one in said):
            unsteady.append(f"{case} ({', '.join(one['behavior'] for one in said)}; through {verdict['behavior']})")
    for case in worse:
        print(f"{case} differs: {[found[agent][case] for agent in _AGENTS]}")
    kinds = Counter(verdict["behavior"] for verdict in through.values())
    print(f"{len(through)} cases through the proxy: {dict(kinds)}; {len(worse)} that direct never gave")
    print(f"not the same each time: {', '.join(unsteady) or 'none'}")
    return 1 if worse or not through else 0


def _essence(verdict: dict[str, Any]) -> tuple[str, str, int | None]:
    behavior = verdict["behavior"].replace("NON-STRICT", "OK")
    return behavior, verdict["behaviorClose"], verdict["remoteCloseCode"]


if __name__ == "__main__":
    sys.exit(main())

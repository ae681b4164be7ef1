"""A Redis-compatible server of the tests' own: started for them, empty, gone with them."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from sidecar.connections import connect_redis
from sidecar.embedded.redis import server_argv

PATIENCE_SECONDS = 20.0


@contextlib.asynccontextmanager
async def own_redis() -> AsyncIterator[Any]:
    """A client of a server that nobody else knows; raises RuntimeError when it does not start."""
    with tempfile.TemporaryDirectory(prefix="sidecar-plan-") as folder:
        socket = Path(folder) / "redis.sock"
        quiet = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(*server_argv(folder, socket), stdout=quiet, stderr=quiet)
        client = connect_redis("embedded", embedded_socket=socket)
        try:
            await _ready(client, process)
            yield client
        finally:
            await client.aclose()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _ready(client: Any, process: asyncio.subprocess.Process) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_SECONDS
    while True:
        try:
            await client.ping()
        except (RedisError, OSError) as error:
            if process.returncode is not None or loop.time() > deadline:
                raise RuntimeError(f"the embedded Redis does not start: {error}") from None
            await asyncio.sleep(0.005)
        else:
            return

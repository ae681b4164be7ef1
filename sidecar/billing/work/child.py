"""`python -m sidecar.billing.work.child`: does one run in a process of its own and tells how far it is.

Reads one line of JSON, the job; writes lines of JSON: `{"total": n}`, `{"done": n}`, at last `{"result": …}` or
`{"error": "a sentence"}`. Ends when its input ends: then the replica that started it is gone. Its memory is bounded by
the kernel, so that a large account ends this process and no other.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import threading
import time
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from sidecar import logs
from sidecar.billing.ledger.database import Database
from sidecar.billing.work.kinds import KINDS

TELL_SECONDS = 0.5
_NICE = 10  # the API's requests come first


def main() -> int:
    """Read the job, work, tell."""
    logs.configure("warning", os.environ.get("SIDECAR_LOG_FORMAT", "auto"))
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_AS, (job["memory_bytes_max"], job["memory_bytes_max"]))
    try:
        asyncio.run(_work(job))
    except MemoryError:
        most = job["memory_bytes_max"] >> 20
        _tell(error=f"a customer has too many outcomes to rate within {most} MiB")
    except SQLAlchemyError as error:
        _tell(error=f"the ledger's database does not answer: {type(error).__name__}")
    return 0


async def _work(job: dict[str, Any]) -> None:
    database = Database(make_url(job["url"]))
    told = 0.0
    try:
        async with database.reading() as connection:
            work, first = KINDS[job["kind"]](connection, job), True
            async for step in work:
                if isinstance(step, dict):
                    _tell(result=step)
                elif first:
                    _tell(total=step)
                elif time.monotonic() - told >= TELL_SECONDS:
                    _tell(done=step)
                    told = time.monotonic()
                first = False
    finally:
        await database.close()


def _tell(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    # Not through the buffer, whose lock would be held when the interpreter ends.
    while os.read(sys.stdin.fileno(), 1 << 16):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())

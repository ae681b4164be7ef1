"""The observer's end: what is left of the queue is in the journal; now apply and deliver what can be, then leave.

To leave means that other replicas no longer wait for this one before a deadline fires. So a replica leaves only when
nothing waits here any more; with a backlog it stays registered, and the others wait until it is back, or for as long as
they wait for any producer that fell silent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from redis.exceptions import RedisError

from sidecar.delivery.courier import Courier
from sidecar.sessions.applier import Applier
from sidecar.sessions.store import Store

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """What ends, and how: `producer` is the journal's id; `beat` beats once; `close_intake` takes no more signals.

    `emptied` says whether all that passed the proxy is in the journal; `background` are the tasks that must have ended
    before a replica leaves, since a heartbeat after that would register it again.
    """

    producer: str
    applier: Applier
    store: Store
    courier: Courier
    beat: Callable[[], Awaitable[None]]
    close_intake: Callable[[], Awaitable[None]]
    emptied: Callable[[], bool]
    background: Sequence[asyncio.Task[Any]]

    async def run(self, seconds: float) -> bool:
        """Within about `seconds`; says whether the replica left."""
        deadline = asyncio.get_running_loop().time() + seconds
        await self.applier.drained(deadline)
        await self.beat()
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            await self.courier.drain(deadline)
        await self.close_intake()
        drained = await self.applier.drained(deadline)
        for task in self.background:
            task.cancel()
        await asyncio.gather(*self.background, return_exceptions=True)
        if not (drained and self.applier.backlog() == 0 and self.emptied()):
            log.warning("facts_left", backlog=self.applier.backlog())
            return False
        try:
            await self.store.leave(self.producer)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("leave_not_told", reason=repr(error))
            return False
        return True

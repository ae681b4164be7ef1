"""Senders of signals that wait to hear what became of theirs."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from sidecar.sessions.store import Applied

RESULTS_MAX = 4096  # answers kept for senders that ask only after it was applied


class Senders:
    """Hands out what became of one journal's signals, by their sequence. The first answer stays."""

    def __init__(self) -> None:
        self._waiters: dict[int, asyncio.Future[Applied]] = {}
        self._results: OrderedDict[int, Applied] = OrderedDict()

    async def wait(self, sequence: int) -> Applied:
        """What became of it; waits until it is told."""
        if sequence in self._results:
            return self._results[sequence]
        waiter = self._waiters.get(sequence)
        if waiter is None:
            waiter = self._waiters[sequence] = asyncio.get_running_loop().create_future()
        try:
            return await asyncio.shield(waiter)
        finally:
            if not waiter.done():
                self._waiters.pop(sequence, None)

    def tell(self, sequence: int, answer: Applied) -> None:
        """It is applied."""
        if sequence in self._results:
            return
        self._results[sequence] = answer
        if len(self._results) > RESULTS_MAX:
            self._results.popitem(last=False)
        waiter = self._waiters.pop(sequence, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)

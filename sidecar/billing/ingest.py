"""Taking events from many clients at once: what waits goes into one transaction, or into as many as may run at once.

A commit costs a disk its write to the platter, whether it holds one event or a thousand. So posts that arrive while a
transaction is under way wait for it and then share the next one. Each still gets its own verdicts, and is answered only
when its events are on disk.

PostgreSQL is given two transactions: while it works on one, the answers to the other are read and the next events
checked here. With one, clients that were answered together come again together, and either side waits for the other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from sidecar.billing.events import OutcomeEvent, Posted
from sidecar.billing.ledger import mentions, waiting
from sidecar.billing.ledger.append import Verdict, append
from sidecar.billing.ledger.database import CLOSING, Database, UnreachableError, met_another

TRANSACTIONS = 2  # at once on PostgreSQL; SQLite has one writer
TOGETHER_MAX = 2000  # events in one transaction
WAITING_MAX = 20_000  # events that wait for a transaction; past it, senders are asked to come again
_ATTEMPTS = 3


class BusyError(Exception):
    """Too many events wait for the database already."""


@dataclass(slots=True)
class _Post:
    events: Sequence[Posted]
    verdicts: asyncio.Future[list[Verdict]]


class Ingest:
    """Adds events to the ledger; `clock` gives Unix microseconds."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        self._waiting: deque[_Post] = deque()
        self._at_once = 1 if database.sqlite else TRANSACTIONS
        self._tasks: list[asyncio.Task[None]] = []
        self.waiting = 0
        self.refused = 0

    async def add(self, events: Sequence[Posted]) -> list[Verdict]:
        """Add events, atomically; a verdict for each, once it is on disk. Raises BusyError."""
        if self.waiting + len(events) > WAITING_MAX:
            self.refused += len(events)
            raise BusyError(f"{self.waiting} events wait for the database")
        self.waiting += len(events)
        try:
            return await self._verdicts(events)
        finally:
            self.waiting -= len(events)

    async def _verdicts(self, events: Sequence[Posted]) -> list[Verdict]:
        post = _Post(events, asyncio.get_running_loop().create_future())
        self._waiting.append(post)
        self._tasks = [task for task in self._tasks if not task.done()]
        if len(self._tasks) < self._at_once:
            self._tasks.append(asyncio.create_task(self._work()))
        return await post.verdicts

    async def _work(self) -> None:
        while self._waiting:
            await self._together(self._share())

    def _share(self) -> list[_Post]:
        """The posts of the next transaction: as large a part of all as leaves the others theirs."""
        share = -(-len(self._waiting) // self._at_once)
        posts = [self._waiting.popleft()]
        number = len(posts[0].events)
        while len(posts) < share and number + len(self._waiting[0].events) <= TOGETHER_MAX:
            posts.append(self._waiting.popleft())
            number += len(posts[-1].events)
        return posts

    async def _together(self, posts: list[_Post]) -> None:
        try:
            verdicts = await self._transaction([event for post in posts for event in post.events])
        except SQLAlchemyError as error:
            if len(posts) == 1 or isinstance(error, UnreachableError):
                for post in posts:
                    _settle(post, error)
                return
            for post in posts:  # one of them may be what the database cannot take: the others shall not suffer
                await self._together([post])
        except BaseException as error:
            for post in posts:
                _settle(post, error)
            if not isinstance(error, Exception):
                raise
        else:
            for post in posts:
                _settle(post, verdicts[: len(post.events)])
                verdicts = verdicts[len(post.events) :]

    async def _transaction(self, events: list[Posted]) -> list[Verdict]:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                # No index spans the two tables, whose ids are one: whoever adds a statement, now and then, is alone.
                shared = all(isinstance(posted.event, OutcomeEvent) for posted in events)
                async with self._database.writing(lock=CLOSING, shared=shared) as connection:
                    verdicts = await append(connection, events, self._clock(), met=attempt > 1)
                    added = [event for event, verdict in zip(events, verdicts, strict=True) if verdict == "accepted"]
                    await mentions.note(connection, added)
                    await waiting.note(connection, added)
                    return verdicts
            except DBAPIError as error:
                if attempt == _ATTEMPTS or not met_another(error):
                    raise
        raise AssertionError("the last attempt returns or raises")


def _settle(post: _Post, result: list[Verdict] | BaseException) -> None:
    """Tell the client, unless it has gone away."""
    if post.verdicts.done():
        return
    if isinstance(result, BaseException):
        post.verdicts.set_exception(result)
    else:
        post.verdicts.set_result(result)

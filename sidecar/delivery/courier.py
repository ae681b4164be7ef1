"""Outbox → billing API: at least once, for ever, in batches; the ledger's ids make it exactly once.

How it works. Replicas are consumers of one group on the outbox stream. A courier takes up to 100 new entries, posts
them, and removes those that were delivered (XACK and XDEL) or refused (moved to the dead letters in one step). What was
neither is sent again after a pause that grows up to a cap; the same entries, hence the same bytes. While it tries it
refreshes its claim, so that nobody takes them over; entries whose courier died are taken over once they have been idle
long enough. One request is in flight at a time: a batch of 100 per round trip is more than one Redis can finalize.

No event holds up the others. When the API has failed several times at the same batch (5xx), each event is sent alone,
and those that it still fails at are put aside: tried again from time to time, while the next ones flow. What the dead
letters have no room for stays in the outbox, unclaimed, and comes again as a dead courier's entries do.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import structlog
from redis.exceptions import RedisError

from sidecar.delivery.answers import AnswerTooLongError, Verdict, judge, read_answer
from sidecar.delivery.event import Event, event_of, request_of
from sidecar.delivery.outbox import Outbox
from sidecar.sessions.store import Store
from sidecar.tasks import told_to_stop

BATCH_MAX = 100
REQUEST_SECONDS = 30.0
PROBE_SECONDS = 5.0
SERVER_ERRORS_MAX = 8  # in a row: most of a minute, before the batch is taken apart
ALONE_MAX = 8  # events that fail alone with none going through: the API is down, and no event is to blame
BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX = 0.2, 30.0
HURRY_SECONDS_MAX = 0.25
TAKEOVER_SECONDS = 90.0  # longer than the longest pause and request together
UNKNOWN, OK, DOWN = 0, 1, 2
_UNREADABLE = Event("", b"")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Parcel:
    """An outbox entry and the event that it is posted as."""

    entry: str
    event: Event


class Courier:
    """Delivers `store`'s outbox to `url` (or what the function `url` returns; None while that is not known).

    `name` is this replica's among the couriers: the same after a restart, so that it goes on with what it had taken.
    `count(event, n)` is told what happens, `posted(result, seconds)` how long a post took and what came of it (taken,
    again, halved), `delivered` each event that the API has. `sleep`, `clock` and `rng` are parameters for the tests.
    """

    def __init__(
        self,
        store: Store,
        url: str | Callable[[], str | None],
        *,
        token: str | None = None,
        name: str | None = None,
        count: Callable[[str, int], None] = lambda _event, _n: None,
        posted: Callable[[str, float], None] = lambda _result, _seconds: None,
        delivered: Callable[[Event], None] = lambda _event: None,
        takeover_seconds: float = TAKEOVER_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self.state = UNKNOWN
        self._store = store
        self._url = url
        self._count = count
        self._posted = posted
        self._delivered = delivered
        self._sleep = sleep
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311  jitter, not secrets
        headers = {"User-Agent": "outcome-sidecar"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(10.0),
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )
        self._outbox = Outbox(
            store,
            name or socket.gethostname(),
            batch_max=BATCH_MAX,
            takeover_ms=int(takeover_seconds * 1000),
            count=count,
        )
        self._server_errors = 0  # answers of 5xx in a row
        self._aside: list[Parcel] = []
        self._aside_at = 0.0  # when they are tried again, by the loop's clock
        self._dead_full = False
        self._busy = False  # with parcels, whose deliveries say how the billing API is
        self._failures = 0
        self._hurry = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled. An outbox that cannot be read is waited for."""
        failures = 0
        try:
            while not told_to_stop():
                try:
                    await self.step()
                    failures = 0
                except (RedisError, OSError, TimeoutError) as error:
                    self._outbox.reconnected()
                    if failures == 0:
                        log.warning("outbox_not_read", reason=repr(error))
                    failures = min(failures + 1, 8)
                    await self._sleep(self._rng.uniform(0.5, 1.0) * min(0.1 * 2.0**failures, 5.0))
        finally:
            await self._client.aclose()

    async def step(self) -> int:
        """Take one batch and see it through; returns how many entries were taken."""
        await self._try_aside()
        parcels = await self._open(await self._outbox.take())
        taken = len(parcels)
        self._busy = bool(parcels)
        while parcels and not told_to_stop():
            apart = self._server_errors >= SERVER_ERRORS_MAX
            parcels, pause = await (self._one_by_one(parcels) if apart else self._deliver(parcels))
            while parcels and pause > 0 and not told_to_stop():
                await self._pause(min(pause, BACKOFF_SECONDS_MAX))
                pause = 0.0 if self._hurry.is_set() else pause - BACKOFF_SECONDS_MAX
                parcels = await self._still_ours(parcels)
        self._busy = False
        return taken

    async def drain(self, deadline: float) -> bool:
        """Deliver what is there, without long pauses, until the loop's clock reads `deadline`; says whether all was.

        `run` goes on meanwhile.
        """
        self._hurry.set()
        loop = asyncio.get_running_loop()
        try:
            while await self._store.outbox_length() > 0:
                left = deadline - loop.time()
                if left <= 0:
                    return False
                await asyncio.sleep(min(left, 0.05))
        finally:
            self._hurry.clear()
        return True

    async def probe(self) -> None:
        """Ask whether the billing API is there, while nothing is delivered that would tell.

        Any answer but a 5xx will do, since no path of it but that of the outcomes is known. A failed delivery is not
        taken back by this.
        """
        if self._busy:
            return
        url = self._url() if callable(self._url) else self._url
        if url is None:
            self._is(DOWN, "the billing API's address is not known yet")
            return
        try:
            async with (
                asyncio.timeout(PROBE_SECONDS),
                self._client.stream("GET", f"{url.rstrip('/')}/readyz") as answer,
            ):
                status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            self._is(DOWN, f"{url} does not answer: {error!r}")
            return
        if not self._busy:
            self._is(DOWN if status >= 500 else OK, f"{url}/readyz answers {status}")

    async def _open(self, entries: list[tuple[Any, Any]]) -> list[Parcel]:
        parcels = []
        for raw_entry, raw in entries:
            entry = _text(raw_entry)
            fields = {_text(name): value for name, value in raw.items()}
            try:
                event = event_of(_text(fields["kind"]), _bytes(fields["body"]))
            except (ValueError, KeyError, TypeError) as error:
                await self._bury(entry, f"not an outbox entry of this release: {type(error).__name__}")
                continue
            parcels.append(Parcel(entry, event))
        return parcels

    async def _still_ours(self, parcels: list[Parcel]) -> list[Parcel]:
        """Those of which the claim could be refreshed."""
        kept = await self._outbox.still_ours(parcel.entry for parcel in parcels)
        return [parcel for parcel in parcels if parcel.entry in kept]

    async def _bury(self, entry: str, reason: str, event: Event = _UNREADABLE) -> bool:
        """Among the dead letters; False when there is no room, and the entry is left in the outbox as it is."""
        log.error("outcome_refused", outcome_id=event.id, session_id=event.session_id, entry=entry, reason=reason)
        buried = await self._store.bury(entry, reason)
        if not buried and not self._dead_full:
            log.error("dead_letters_full", entry=entry)
        self._dead_full = not buried
        self._count("dead_letter" if buried else "dead_letters_full", 1)
        return buried

    # -- the billing API ---------------------------------------------------------------------------------------

    async def _deliver(self, parcels: list[Parcel]) -> tuple[list[Parcel], float]:
        """Send; returns what has to be sent again, and after how many seconds."""
        verdict = await self._post([parcel.event for parcel in parcels])
        if verdict.again:
            self._is(DOWN, verdict.reason)
            self._count("delivery_failed", 1)
            self._server_errors = self._server_errors + 1 if verdict.status >= 500 else 0
            return parcels, self._pause_seconds(verdict)
        if verdict.whole:
            # One of them spoils the batch: halve it until it stands alone.
            self._count("batch_split", 1)
            middle = len(parcels) // 2
            first, pause = await self._deliver(parcels[:middle])
            if first:
                return first + parcels[middle:], pause
            return await self._deliver(parcels[middle:])
        self._failures = self._server_errors = 0
        self._is(OK, "")
        await self._finish(parcels, verdict)
        return [], 0.0

    async def _one_by_one(self, parcels: list[Parcel]) -> tuple[list[Parcel], float]:
        """It may be one of them that the API fails at: send each alone, and put aside those that fail.

        When nothing at all goes through, or nothing waits behind them, all is to be sent again as before.
        """
        failed: list[Parcel] = []
        for tried, parcel in enumerate(parcels, 1):
            failed += (await self._deliver([parcel]))[0]
            if len(failed) == tried == ALONE_MAX:
                return parcels, self._pause_seconds(Verdict(again=True))
        if await self._store.outbox_length() <= len(failed) + len(self._aside):
            return failed, self._pause_seconds(Verdict(again=True))
        room = BATCH_MAX - len(self._aside)
        aside, left = failed[:room], failed[room:]
        if aside:
            log.warning("delivery_put_aside", ids=[one.event.id for one in aside])
            self._count("delivery_put_aside", len(aside))
            self._aside += aside
            self._aside_at = asyncio.get_running_loop().time() + BACKOFF_SECONDS_MAX
        return left, BACKOFF_SECONDS_MAX

    async def _try_aside(self) -> None:
        """Each of those put aside, alone, when it is time."""
        if not self._aside or asyncio.get_running_loop().time() < self._aside_at:
            return
        left = []
        for parcel in await self._still_ours(self._aside):
            verdict = await self._post([parcel.event])
            if verdict.again:
                left.append(parcel)
            else:
                await self._finish([parcel], verdict)
        self._aside = left
        self._aside_at = asyncio.get_running_loop().time() + BACKOFF_SECONDS_MAX

    async def _finish(self, parcels: list[Parcel], verdict: Verdict) -> None:
        done = [parcel.entry for parcel in parcels if parcel.event.id not in verdict.rejected]
        if done:
            await self._outbox.remove(done)
            self._count("delivered", len(done))
        for parcel in parcels:
            reason = verdict.rejected.get(parcel.event.id)
            event = parcel.event
            if reason is not None:
                await self._bury(parcel.entry, reason, event)
                continue
            self._delivered(event)
            if event.session_id:
                log.info("outcome_delivered", outcome_id=event.id, session_id=event.session_id, state=event.state)

    async def _post(self, events: list[Event]) -> Verdict:
        started = time.perf_counter()
        verdict = await self._send(events)
        result = "again" if verdict.again else "halved" if verdict.whole else "taken"
        self._posted(result, time.perf_counter() - started)
        return verdict

    async def _send(self, events: list[Event]) -> Verdict:
        url = self._url() if callable(self._url) else self._url
        if url is None:
            return Verdict(again=True, reason="the billing API's address is not known yet")
        request = request_of(events)
        headers = {"Content-Type": request.content_type, "Idempotency-Key": request.idempotency_key}
        target = f"{url.rstrip('/')}/v1/outcomes"
        try:
            async with (
                asyncio.timeout(REQUEST_SECONDS),
                self._client.stream("POST", target, content=request.body, headers=headers) as response,
            ):
                body = await read_answer(response.aiter_bytes())
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, AnswerTooLongError) as error:
            return Verdict(again=True, reason=repr(error))
        return judge(
            response.status_code,
            body,
            [event.id for event in events],
            retry_after=response.headers.get("Retry-After"),
            now=self._clock(),
        )

    def _is(self, state: int, reason: str) -> None:
        if state != self.state:
            if state == DOWN:
                log.warning("billing_down", reason=reason)
            else:
                log.info("billing_up")
        self.state = state

    # -- pauses ------------------------------------------------------------------------------------------------

    def _pause_seconds(self, verdict: Verdict) -> float:
        """Capped exponential with jitter; never shorter than the billing API asked for."""
        pause = min(BACKOFF_SECONDS_MIN * 2.0**self._failures, BACKOFF_SECONDS_MAX) * self._rng.uniform(0.5, 1.0)
        self._failures = min(self._failures + 1, 16)
        return max(pause, verdict.retry_after_seconds or 0.0)

    async def _pause(self, seconds: float) -> None:
        """Sleep, but hurry while draining. One sleep is shorter than the time after which others take over."""
        if self._hurry.is_set():
            await self._sleep(min(seconds, HURRY_SECONDS_MAX))
            return
        sleeping = asyncio.ensure_future(self._sleep(seconds))
        hurrying = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait({sleeping, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            hurrying.cancel()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value

"""The shell around the outbox: claims, posts, writes down what came of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import structlog

from sidecar.billing.exports.config import Destination
from sidecar.billing.exports.outbox import Answered, Claimed, claim, settle
from sidecar.billing.exports.target import HOUR_US, MINUTE_US, Answer, Sent, Target, Verdict, excerpt
from sidecar.billing.ledger.database import Database

log = structlog.get_logger()
REQUEST_SECONDS = 30.0
ANSWER_BYTES_MAX = 1 << 20
_LOOK_AGAIN_SECONDS = 0.5
_RETRY_AFTER_MAX_US = HOUR_US
_QUIET_MAX_US = MINUTE_US  # for all other entries, whatever a single answer says
_TOO_MANY, _TOO_MANY_US = 429, 1_000_000  # a pause where the answer names none


class Sender:
    """Sends what is due at one target; `clock` gives Unix microseconds. `results` counts what was answered.

    `held_up` counts batches that were due while `concurrency_max` requests were on their way already.
    """

    def __init__(self, database: Database, destination: Destination, clock: Callable[[], int]) -> None:
        self.destination = destination
        self.results: Counter[str] = Counter()
        self.held_up = 0
        self._database = database
        self._clock = clock
        self._on_their_way: set[asyncio.Task[None]] = set()
        self._answers: list[Answered] = []
        self._settling = asyncio.Lock()  # what is answered while others are written down is written down together
        self._quiet_until_us = 0
        most = destination.traits.concurrency_max
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
        self._http = httpx.AsyncClient(timeout=REQUEST_SECONDS, follow_redirects=False, limits=limits)

    async def close(self) -> None:
        """Let go of what is on its way, which is sent again after its claim, and of the connections."""
        for task in self._on_their_way:
            task.cancel()
        await asyncio.gather(*self._on_their_way, return_exceptions=True)
        await self._http.aclose()

    async def feed(self) -> bool:
        """Begin with batches that are due, as soon as one more may be on its way; whether there was anything to do.

        Raises what kept an earlier one from being written down.
        """
        most = self.destination.traits.concurrency_max
        full = len(self._on_their_way) >= most
        if full:
            await asyncio.wait(self._on_their_way, return_when=asyncio.FIRST_COMPLETED)
        for task in [task for task in self._on_their_way if task.done()]:
            self._on_their_way.remove(task)
            task.result()
        batches = await self._claim(most - len(self._on_their_way))
        for claimed in batches or ():
            self._on_their_way.add(asyncio.create_task(self._finish(claimed)))
        self.held_up += full and bool(batches)
        if not batches and self._on_their_way:  # one that comes back may let another go
            await asyncio.wait(
                self._on_their_way, timeout=_LOOK_AGAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )  # fmt: skip
            return True
        return batches is not None

    async def _claim(self, requests_max: int) -> list[list[Claimed]] | None:
        now_us = self._clock()
        if now_us < self._quiet_until_us:
            return None
        return await claim(self._database, self.destination, now_us, requests_max)

    async def _finish(self, claimed: Sequence[Claimed]) -> None:
        verdicts, wait_us = await self._send(claimed)
        self.results.update(verdict.result for verdict in verdicts)
        for one, verdict in zip(claimed, verdicts, strict=True):
            if verdict.reason:
                level = log.error if verdict.result == "refused" else log.warning
                level("export_not_taken", target=self.destination.name, entry=one.sent.id, error=verdict.reason)
        if wait_us is not None and any(verdict.result == "retry" for verdict in verdicts):
            self._quiet_until_us = self._clock() + min(wait_us, _QUIET_MAX_US)
        answers = [Answered(one, verdict, wait_us) for one, verdict in zip(claimed, verdicts, strict=True)]
        self._answers += answers
        async with self._settling:
            if any(one is answers[0] for one in self._answers):  # else whoever was before has taken them along
                taken, self._answers = self._answers, []
                await settle(self._database, taken, self._clock())

    async def _send(self, claimed: Sequence[Claimed]) -> tuple[list[Verdict], int | None]:
        """A verdict for each, and how long the target wants to be left alone."""
        target, sent = self.destination.target, [one.sent for one in claimed]
        request = target.request(self.destination.endpoint, sent, self._clock())
        url = self.destination.endpoint.url + request.path
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                answer = await self._post(url, request.headers, request.content)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.InvalidURL) as error:
            # Nothing was sent: the target does not have it.
            return [Verdict("retry", _told(error), unstored=True)] * len(sent), None
        except (httpx.HTTPError, TimeoutError) as error:
            return [Verdict("retry", _told(error))] * len(sent), None
        wait_us = retry_after_us(answer, self._clock())
        if answer.status == _TOO_MANY and wait_us is None:
            wait_us = _TOO_MANY_US
        return judged(target, answer, sent), wait_us

    async def _post(self, url: str, headers: object, content: bytes) -> Answer:
        async with self._http.stream("POST", url, headers=dict(headers), content=content) as response:  # type: ignore[call-overload]
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > ANSWER_BYTES_MAX:
                    raise httpx.DecodingError(
                        f"answered {response.status_code} with more than {ANSWER_BYTES_MAX} bytes"
                    )
            names = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status_code, names, bytes(body))


def judged(target: Target, answer: Answer, sent: Sequence[Sent]) -> list[Verdict]:
    """What an answer says; of one that nobody understands, that the target may or may not have the entries."""
    try:
        return target.judge(answer, sent)
    except (TypeError, ValueError, LookupError, AttributeError):
        return [Verdict("retry", f"answered {answer.status}, not understood: {excerpt(answer)}")] * len(sent)


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__


def retry_after_us(answer: Answer, now_us: int) -> int | None:
    """`Retry-After` in seconds or as a date (RFC 9110, 10.2.3), at most an hour; None without a readable one."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(int(text) * 1_000_000, _RETRY_AFTER_MAX_US)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    wait = int((when - datetime.fromtimestamp(now_us / 1_000_000, UTC)).total_seconds() * 1_000_000)
    return min(max(0, wait), _RETRY_AFTER_MAX_US)

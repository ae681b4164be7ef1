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
from sidecar.billing.exports.outbox import Claimed, claim, settle
from sidecar.billing.exports.target import HOUR_US, Answer, Sent, Target, Verdict, excerpt
from sidecar.billing.ledger.database import Database

log = structlog.get_logger()
REQUEST_SECONDS = 30.0
ANSWER_BYTES_MAX = 1 << 20
_RETRY_AFTER_MAX_US = HOUR_US


class Sender:
    """Sends what is due at one target; `clock` gives Unix microseconds. `results` counts what was answered."""

    def __init__(self, database: Database, destination: Destination, clock: Callable[[], int]) -> None:
        self.destination = destination
        self.results: Counter[str] = Counter()
        self._database = database
        self._clock = clock
        self._http = httpx.AsyncClient(timeout=REQUEST_SECONDS, follow_redirects=False)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def step(self) -> bool:
        """Try one batch that is due; whether there was anything to do."""
        claimed = await claim(self._database, self.destination, self._clock())
        if not claimed:
            return claimed is not None
        verdicts, wait_us = await self._send(claimed)
        self.results.update(verdict.result for verdict in verdicts)
        for one, verdict in zip(claimed, verdicts, strict=True):
            if verdict.reason:
                level = log.error if verdict.result == "refused" else log.warning
                level("export_not_taken", target=self.destination.name, entry=one.sent.id, error=verdict.reason)
        await settle(self._database, claimed, verdicts, self._clock(), wait_us)
        return True

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
        return judged(target, answer, sent), retry_after_us(answer, self._clock())

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

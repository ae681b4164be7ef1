"""What an answer of the billing API means for the events that were sent. Pure, but for `read_answer`.

2xx: delivered, but for the ids under `rejected`. 408, 425, 429, 5xx and everything that is no final answer: again
later. Any other 4xx: refused; of a batch as a whole, it says nothing about each event.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime

import orjson

AGAIN = frozenset({408, 425, 429})
RETRY_AFTER_SECONDS_MAX = 3600.0
ANSWER_BYTES_MAX = 1 << 20


class AnswerTooLongError(Exception):
    """Nobody can say what such an answer rejects."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`rejected`: id → reason, for good. `again`: none was taken. `whole`: a batch was refused as one."""

    again: bool = False
    status: int = 0  # of an answer that means again; 0 when there was none
    whole: bool = False
    retry_after_seconds: float | None = None
    rejected: dict[str, str] = field(default_factory=dict)
    reason: str = ""


async def read_answer(chunks: AsyncIterator[bytes]) -> bytes:
    """The answer's body; raises AnswerTooLongError when it is longer than any answer to 100 events."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise AnswerTooLongError(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
    return bytes(body)


def judge(status: int, body: bytes, ids: Sequence[str], *, retry_after: str | None = None, now: float = 0.0) -> Verdict:
    """The verdict over the events `ids`. `now`, Unix seconds, is for a Retry-After that names a date."""
    if 200 <= status < 300:
        return Verdict(rejected=_rejected(body, ids))
    reason = f"HTTP {status}: {_excerpt(body)}"
    if 400 <= status < 500 and status not in AGAIN:
        if len(ids) > 1:
            return Verdict(whole=True, reason=reason)
        return Verdict(rejected={ids[0]: reason}, reason=reason)
    return Verdict(again=True, status=status, retry_after_seconds=retry_after_seconds(retry_after, now), reason=reason)


def retry_after_seconds(value: str | None, now: float) -> float | None:
    """RFC 9110 section 10.2.3: seconds or a date; None when absent or unreadable; capped at an hour."""
    if value is None:
        return None
    text = value.strip()
    if text.isdecimal():
        return min(float(text), RETRY_AFTER_SECONDS_MAX)
    try:
        moment: datetime = parsedate_to_datetime(text)
        seconds = moment.timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_SECONDS_MAX)


def _rejected(body: bytes, ids: Sequence[str]) -> dict[str, str]:
    try:
        document = orjson.loads(body)
    except ValueError:
        return {}
    listed = document.get("rejected") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        return {}
    sent = set(ids)
    rejected = {}
    for item in listed:
        if isinstance(item, dict) and isinstance(item.get("id"), str) and item["id"] in sent:
            rejected[item["id"]] = str(item.get("reason", "rejected"))
    return rejected


def _excerpt(body: bytes) -> str:
    return body[:200].decode("utf-8", "replace").strip()

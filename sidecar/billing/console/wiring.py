"""Is the deployment wired right? Of the newest sessions, how many have a conversation's id, and a customer.

A session without an id is found by its texts, and one without a customer is never charged: both are fine now and then,
and a mistake in the settings when they are many. The newest sessions are remembered here, so that a page reads only
what has come since the last.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from aiohttp import web
from sqlalchemy import select

from sidecar.billing.ledger.tables import outcomes
from sidecar.billing.rating.account import UNATTRIBUTED
from sidecar.billing.service import Billing

NEWEST = 10_000
AT_ONCE = 500  # whose bodies are in memory together
LOW = 0.9
FEW_CALLS = 1.2
_MODELS_MAX = 16  # of a session, of which prices are looked for


class _Session(NamedTuple):
    """`models` are those that LLM cost is made of: of a shadow session, or one without tokens, none."""

    conversation: bool
    customer: bool
    calls: int
    at_us: int
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wired:
    """Shares of sessions, and of their LLM calls; None of nothing. `cut`: there are more than were looked at."""

    sessions: int
    cut: bool
    conversation: float | None
    conversation_calls: float | None
    customer: float | None
    customer_calls: float | None
    calls_per_session: float | None

    @property
    def hints(self) -> list[tuple[str, str]]:
        """(what was seen, the variable to set) where a share is low."""
        found = []
        if _low(self.conversation, self.conversation_calls):
            found.append(
                ("Many sessions have no conversation id, and are put together by their texts.", "SIDECAR_SESSION_KEYS")
            )
        if _low(self.customer, self.customer_calls):
            found.append(("Many sessions have no customer, and are charged to nobody.", "SIDECAR_CUSTOMER"))
        return found

    @property
    def torn(self) -> bool:
        """Whether conversations seem to come as one session for every call."""
        few = self.calls_per_session is not None and self.calls_per_session < FEW_CALLS
        return few and _low(self.conversation, self.conversation_calls)


def _low(*shares: float | None) -> bool:
    return any(share is not None and share < LOW for share in shares)


@dataclass(frozen=True, slots=True)
class Unpriced:
    """Of the newest sessions, those that used a model without a price, which counts nothing; and how many by model."""

    sessions: int
    models: Mapping[str, int]


class Wiring:
    """What this replica remembers of the newest sessions."""

    def __init__(self, billing: Billing) -> None:
        self._billing = billing
        self._newest: deque[_Session] = deque(maxlen=NEWEST)
        self._seen = 0
        self._cut = False
        self._lock = asyncio.Lock()

    async def read(self) -> Wired:
        """As of now."""
        async with self._lock:
            newest, found = await self._since(self._seen)
            self._seen = newest
            self._cut = self._cut or len(found) + len(self._newest) > NEWEST
            self._newest.extend(reversed(found))
            return _shares(self._newest, cut=self._cut)

    def unpriced(self, known: Callable[[str, int], bool]) -> Unpriced:
        """Which of the sessions that `read` last found used models without a price: `known(model, Unix µs)`."""
        sessions, models = 0, Counter[str]()
        for one in self._newest:
            missing = {model for model in one.models if not known(model, one.at_us)}
            sessions += bool(missing)
            models.update(missing)
        return Unpriced(sessions, models)

    async def _since(self, seen: int) -> tuple[int, list[_Session]]:
        """(place of the newest, what came after a place: newest first, at most one more than is remembered)."""
        o = outcomes.c
        query = select(o.seq, o.conversation.is_not(None), o.customer != UNATTRIBUTED, o.at_us, o.body)
        query = query.where(o.seq > seen, o.revision == 0).order_by(o.seq.desc())
        newest, found = seen, list[_Session]()
        async with self._billing.database.reading() as connection:
            while len(found) <= NEWEST:
                wanted = min(AT_ONCE, NEWEST + 1 - len(found))
                rows = (await connection.execute(query.limit(wanted))).all()
                found += await asyncio.to_thread(_sessions, rows)
                newest = max([newest, *(row[0] for row in rows[:1])])
                if len(rows) < wanted:
                    break
                query = query.where(o.seq < rows[-1][0])
        return newest, found


WIRING = web.AppKey("wiring", Wiring)


def _sessions(rows: Sequence[tuple[int, bool, bool, int, str]]) -> list[_Session]:
    return [_session(row) for row in rows]


def _session(row: tuple[int, bool, bool, int, str]) -> _Session:
    _, known, paid, at_us, body = row
    try:
        data = orjson.loads(body)["data"]
    except orjson.JSONDecodeError:  # halves of characters, which it does not take
        data = json.loads(body)["data"]
    calls = data.get("llm_calls")
    number = calls if isinstance(calls, int) and calls > 0 else 0
    return _Session(bool(known), bool(paid), number, at_us, _models(data))


def _models(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of a live session that counted tokens; each name is in memory once."""
    models, tokens = data.get("models"), data.get("tokens")
    if data.get("shadow") or not isinstance(models, list) or not isinstance(tokens, Mapping):
        return ()
    used = any(isinstance(count, int) and count > 0 for count in (tokens.get("input"), tokens.get("output")))
    return tuple(sys.intern(str(model)) for model in models[:_MODELS_MAX]) if used else ()


def _shares(found: Sequence[_Session], *, cut: bool) -> Wired:
    calls = sum(one.calls for one in found)

    def of(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return Wired(
        len(found),
        cut,
        of(sum(one.conversation for one in found), len(found)),
        of(sum(one.calls for one in found if one.conversation), calls),
        of(sum(one.customer for one in found), len(found)),
        of(sum(one.calls for one in found if one.customer), calls),
        of(calls, len(found)) if calls else None,
    )

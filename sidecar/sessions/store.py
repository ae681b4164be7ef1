"""Sessions in Redis: one script call applies one fact; replicas may call in any order, any number of times.

The store is a thin shell around the scripts in lua/ (work.lua lists every key). All keys of a tenant share the hash
tag {tenant}, so a script is atomic over them on Redis Cluster too. Commands are sent in pipelines, in order; a fact
that could not be applied makes the producer's following facts answer `rewind`, so nothing can be skipped by accident.
Needs Redis 7 or Valkey (script flags). The client may be redis-py or valkey-py, asyncio, decoding or not.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from redis.exceptions import ResponseError

from sidecar.identity import alias_digest
from sidecar.intake.signal import Signal
from sidecar.observer.observation import Observation
from sidecar.sessions.chain import Verification, verify
from sidecar.sessions.facts import observation_json, signal_json
from sidecar.sessions.producers import HOUR_MS, Producers
from sidecar.sessions.runner import text as _text
from sidecar.sessions.scripts import LIMITS
from sidecar.sessions.view import SessionView, read_session, rfc3339

Status = Literal["applied", "duplicate", "waiting", "late", "ambiguous", "rewind", "early", "full", "refused", "error"]
Fact = Observation | Signal

DEAD_LETTERS_MAX = 100_000
GROUP = "courier"
_READ_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Posted:
    """An outcome that went into the outbox."""

    session_id: str
    revision: int
    state: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one fact.

    `applied`, `duplicate`, `waiting` (a signal before its session), `late` (one after its session was forgotten),
    `ambiguous` (one by an id that several conversations have) and `refused` (it can never be applied; `reason`) are
    final. `rewind`: Redis is behind, `mark` says where; `early`: another replica may still bring what tells the
    session; `full`: the outbox has no room; `error`: Redis said `reason` (out of memory, loading, …). After these it
    has to come again.
    """

    status: Status
    mark: int = 0
    session_id: str = ""
    state: str = ""
    reason: str = ""
    went: str = ""  # what `apply_many` has to be told when the same observation is applied again
    events: tuple[Posted, ...] = ()

    @property
    def final(self) -> bool:
        """Whether the fact need not come again."""
        return self.status in {"applied", "duplicate", "waiting", "late", "ambiguous", "refused"}


@dataclass(frozen=True, slots=True)
class Swept:
    """`fired` sessions; `more` are due; `full`: the outbox had no room.

    `least_ms` is the least mark, up to which deadlines may fire (0: none may), and `holder` the producer whose it is.
    """

    fired: int
    more: bool
    full: bool
    least_ms: int
    holder: str
    events: tuple[Posted, ...]


@dataclass(frozen=True, slots=True)
class OutboxState:
    """`length` events wait, the oldest since `since_ms` (Redis' clock; None: none waits); `dead` were refused."""

    length: int
    since_ms: int | None
    dead: int


# Inside the class, `list` is the method.
AppliedFacts = list[Applied]
Views = list[SessionView]
Flags = list[bool]
Letters = list[dict[str, Any]]
Place = tuple[int, str]  # in the list of sessions: when one began, ms, and its id


class Store(Producers):
    """One tenant's sessions. `outbox_max` bounds undelivered outcomes."""

    def __init__(
        self,
        redis: Any,
        tenant: str,
        *,
        outbox_max: int = 1_000_000,
        journal_hours: float = 168,
    ) -> None:
        super().__init__(redis, tenant, journal_hours=journal_hours)
        self.outbox_max = outbox_max

    # -- facts ---------------------------------------------------------------------------------------------------

    async def apply_many(
        self,
        operations: Sequence[tuple[Fact, int]],
        *,
        own: str = "",
        went: Sequence[str] = (),
        patient_from_ms: int | None = None,
    ) -> AppliedFacts:
        """Apply (fact, its producer's preceding sequence) in order; one answer each.

        `went` says where the observations went when they were applied before (`Applied.went`; "": never applied).
        An observation that ended after `patient_from_ms` (event time) may be answered `early`; None: none is.
        `own` names the replica's own live mark (see `heartbeat`), which its own facts, applied in the journal's order,
        need not wait for: so a replay of the journal decides as the live run did, wherever the mark stood then.
        Raises redis.exceptions.RedisError or OSError when Redis does not answer: any of the facts may have been
        applied then, and sending them again is harmless.
        """
        before = went or [""] * len(operations)
        patience = "" if patient_from_ms is None else patient_from_ms
        calls = [
            [*self._arguments(fact, previous, own, where), patience]
            for (fact, previous), where in zip(operations, before, strict=True)
        ]
        answers = await self._run_many("apply", calls)
        return [_applied(answer) for answer in answers]

    def _arguments(self, fact: Fact, previous: int, own: str, went: str) -> Sequence[bytes | str | int]:
        if isinstance(fact, Observation):
            kind, body = "observation", observation_json(fact, went)
        else:
            kind, body = "signal", signal_json(fact)
        bounds = (self.outbox_max, self._mark_ttl_ms)
        return [kind, fact.producer, fact.sequence, previous, *bounds, body, own, self.known_generation]

    # -- time ----------------------------------------------------------------------------------------------------

    async def sweep(self, limit: int = 100) -> Swept:
        """Fire up to `limit` deadlines that every live producer has come past."""
        answer = await self._run("sweep", [limit, self.outbox_max])
        least_ms, holder = int(answer[3]), _text(answer[4])
        return Swept(int(answer[0]), bool(answer[1]), bool(answer[2]), least_ms, holder, _posted(answer[5:]))

    async def refresh(self, offset: int, limit: int = 100) -> int:
        """Lengthen the life of due sessions that wait for a producer, `limit` from `offset` on; how many there were."""
        return int((await self._run("refresh", [offset, limit]))[0])

    async def statement(self, now_ms: int) -> int:
        """Put this hour's statement into the outbox: 1 when this call did, 2 when one did before, 0 when none could."""
        hour_ms = now_ms - now_ms % HOUR_MS
        hour = rfc3339(hour_ms)[:13]
        return int(await self._run("statement", [hour, hour_ms, self.tenant, self.outbox_max, now_ms]))

    async def too_many_wait(self, signals: Sequence[Signal]) -> Flags:
        """Of each, whether as many as may wait for a session that is not known, and it is a new one.

        Asked before they are taken. The script leaves room for what is taken meanwhile (`waiting_over`).
        """
        pipeline = self.redis.pipeline(transaction=False)
        for signal in signals:
            told = f"{len(signal.source.encode())}:{signal.source}{signal.id}".encode()
            pipeline.llen(self.key("waiting", _awaited(signal)))
            pipeline.exists(self.key("signal", hashlib.sha1(told, usedforsecurity=False).hexdigest()))
            for kind in ("alias", "text") if signal.alias else ("session", "merged"):
                pipeline.exists(self.key(kind, _awaited(signal)))
        found = iter(await pipeline.execute() if signals else ())
        over: Flags = []
        coming: Counter[str] = Counter()
        for signal in signals:
            name, waiting = _awaited(signal), int(next(found))
            known = sum(int(next(found)) for _ in range(3)) > 0
            over.append(not known and waiting + coming[name] >= LIMITS["waiting"])
            coming[name] += not known and not over[-1]
        return over

    # -- views ---------------------------------------------------------------------------------------------------

    async def session(self, session_id: str) -> SessionView | None:
        """One session with its timeline; by the id of a session that was merged, the one that it is a part of."""
        found = await self._living(session_id)
        if found is None:
            return None
        living, raw = found
        return read_session(_bytes(raw), await self.redis.lrange(self.key("timeline", living), 0, -1))

    async def verify(self, session_id: str) -> Verification | None:
        """Whether the session's timeline is as it was written (chain.py); None when there is no such session.

        Of a session that was merged the timeline is that of the one that lives.
        """
        while (found := await self._living(session_id)) is not None:
            living, raw = found
            timeline = await self.redis.lrange(self.key("timeline", living), 0, -1)
            # The two are read apart: a fact that came in between is no change of the past.
            if await self.redis.get(self.key("session", living)) == raw:
                return verify(_bytes(raw), [_bytes(entry) for entry in timeline])
        return None

    async def _living(self, session_id: str) -> tuple[str, bytes | str] | None:
        """The id and the JSON of the session, or of the one that it has become a part of."""
        for _ in range(LIMITS["merged_hops"] + 1):
            raw = await self.redis.get(self.key("session", session_id))
            if raw is not None:
                return session_id, raw
            into = await self.redis.get(self.key("merged", session_id))
            if into is None:
                return None
            session_id = _text(into)
        return None

    async def by_alias(self, kind: str, value: str) -> SessionView | None:
        """The session that an id leads to; for a conversation's id its newest. None of one that several have made."""
        digest = alias_digest(self.tenant, kind, value)
        found = await self.redis.get(self.key("alias", digest))
        if found is None:
            makers = await self.redis.hkeys(self.key("text", digest))  # they may be one by now
            found = makers[0] if len(makers) == 1 else None
        return await self.session(_text(found).partition(" ")[0]) if found is not None else None

    async def list(self, limit: int = 100, state: str | None = None) -> Views:
        """The latest sessions, newest first, without timelines; only those in `state` when one is named."""
        return (await self.page(limit, state))[0]

    async def page(
        self, limit: int, state: str | None = None, customer: str | None = None, after: Place | None = None
    ) -> tuple[Views, Place | None]:
        """Those that began after a place in that list, and where the next page begins (None: there is none)."""
        found: Views = []
        top, offset = ("+inf" if after is None else after[0]), 0
        while True:
            listed = await self.redis.zrevrangebyscore(
                self.key("recent"), top, "-inf", start=offset, num=_READ_AT_ONCE, withscores=True
            )
            places = [(int(score), _text(session_id)) for session_id, score in listed]
            unseen = [place for place in places if after is None or place < after]
            raws = await self.redis.mget([self.key("session", name) for _, name in unseen]) if unseen else []
            for place, raw in zip(unseen, raws, strict=True):
                view = None if raw is None else read_session(raw)
                if view and state in {None, view.state} and customer in {None, view.customer}:
                    found.append(view)
                    if len(found) == limit:
                        return found, place
            if len(places) < _READ_AT_ONCE:
                return found, None
            offset += _READ_AT_ONCE

    async def moves(self, after: str | None, limit: int) -> tuple[Letters, str]:
        """How sessions came into their states, oldest first: those after a cursor, or (None) the newest.

        The newest 10,000 of the tenant are kept, for a day, whichever replica applied them. Returns the cursor to go
        on from, too.
        """
        name = self.key("events")
        if after is None:
            raws = (await self.redis.xrevrange(name, count=limit))[::-1]
        else:
            raws = await self.redis.xrange(name, min=f"({after}", count=limit)
        found = [orjson.loads(fields.get(b"body", fields.get("body"))) for _, fields in raws]
        return found, _text(raws[-1][0]) if raws else after or "0-0"

    async def counters(self) -> dict[str, int]:
        """What the scripts count: opened, open, finalized:STATE, revised, trailing, incomplete, refused, …"""
        raw = await self.redis.hgetall(self.key("counters"))
        return {_text(name): int(value) for name, value in raw.items()}

    # -- the deployment ------------------------------------------------------------------------------------------

    async def hash_key(self, proposal: str) -> str:
        """The deployment's hash key: the one in Redis, or `proposal`, which is then kept there."""
        kept = await self.redis.set(self.key("hash-key"), proposal, nx=True, get=True)
        return proposal if kept is None else _text(kept)

    # -- outbox and dead letters ---------------------------------------------------------------------------------

    async def outbox_length(self) -> int:
        """Outcomes not delivered yet."""
        return int(await self.redis.xlen(self.key("outbox")))

    async def outbox_state(self) -> OutboxState:
        """How much waits there, since when, and what was refused."""
        pipeline = self.redis.pipeline(transaction=False)
        pipeline.xlen(self.key("outbox"))
        pipeline.xrange(self.key("outbox"), count=1)
        pipeline.xlen(self.key("dead"))
        length, oldest, dead = await pipeline.execute()
        since_ms = int(_text(oldest[0][0]).partition("-")[0]) if oldest else None
        return OutboxState(int(length), since_ms, int(dead))

    async def bury(self, entry: str, reason: str) -> bool:
        """Move an outbox entry to the dead letters; False when these have no room (it stays in the outbox)."""
        return int(await self._run("letters", ["bury", entry, GROUP, reason[:500], DEAD_LETTERS_MAX])) >= 0

    async def forget_couriers(self, idle_ms: int) -> int:
        """Delete the group's consumers that were idle for longer and hold nothing; returns how many."""
        return int(await self._run("letters", ["tidy", GROUP, idle_ms]))

    async def dead_letters(self, limit: int = 100) -> Letters:
        """Refused events, oldest first: {"id", "kind", "reason", "body"}."""
        letters: Letters = []
        for entry, raw in await self.redis.xrange(self.key("dead"), count=limit):
            fields = {_text(name): _text(value) for name, value in raw.items()}
            letters.append(
                {
                    "id": _text(entry),
                    "kind": fields.get("kind", ""),
                    "reason": fields["why"],
                    "body": _document(fields.get("body", "")),
                },
            )
        return letters

    async def redeliver(self) -> int:
        """Move the dead letters back into the outbox, as far as it has room; returns how many."""
        total = 0
        # Those there now: one refused again meanwhile must not make this go on for ever.
        left = int(await self.redis.xlen(self.key("dead")))
        while left > 0:
            moved = int(await self._run("letters", ["revive", self.outbox_max, min(left, _READ_AT_ONCE)]))
            if moved == 0:
                break
            total += moved
            left -= moved
        return total


def _awaited(signal: Signal) -> str:
    """The name under which it waits for its session."""
    return signal.session_id or (signal.alias.digest if signal.alias else "")


def _applied(answer: Any) -> Applied:
    if isinstance(answer, Exception):
        if isinstance(answer, ResponseError) or type(answer).__module__.partition(".")[0] in {"redis", "valkey"}:
            return Applied("error", reason=str(answer))
        raise answer
    status: Status = _text(answer[0])  # type: ignore[assignment]
    return Applied(
        status,
        int(answer[1]),
        _text(answer[2]),
        _text(answer[3]),
        _text(answer[4]),
        _text(answer[5]),
        _posted(answer[6:]),
    )


def _posted(lines: Sequence[bytes | str]) -> tuple[Posted, ...]:
    parts = [_text(line).split(" ") for line in lines]
    return tuple(Posted(session, int(revision), state) for session, revision, state in parts)


def _document(text: str) -> Any:
    """An entry that could not be read is shown as the text that it is."""
    try:
        return orjson.loads(text)
    except ValueError:
        return text


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value

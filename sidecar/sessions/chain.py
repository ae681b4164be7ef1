"""Has a session's timeline been changed since? Pure.

How it works. Every entry of the timeline says its number (`n`) and the SHA-1 of the bytes of the entry before (`prev`).
The session keeps the SHA-1 of the newest (`chain`) and, because the middle of a long timeline is dropped, of the last
entry that never is (`anchor`). Each event that is posted carries the SHA-1 of the entry that posted it, and the ledger
keeps events for ever: who rewrites a timeline in Redis, and every digest after it, still contradicts the ledger.

It makes changes visible; it proves nothing about who made them, or about what was never written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from sidecar.sessions.scripts import LIMITS


@dataclass(frozen=True, slots=True)
class Verification:
    """`problems` is empty when every entry is as it was written; `posted` is the digest at each revision."""

    session_id: str
    entries: int
    omitted: int
    chain: str | None
    posted: Mapping[int, str]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As `GET /v1/sessions/{id}/verification` shows it."""
        return {
            "session_id": self.session_id,
            "intact": not self.problems,
            "problems": list(self.problems),
            "entries": self.entries,
            "omitted": self.omitted,
            "evidence_chain": self.chain,
            "posted": [{"revision": number, "evidence_chain": digest} for number, digest in self.posted.items()],
        }


def verify(session: bytes, timeline: Sequence[bytes]) -> Verification:
    """Check a timeline, as Redis keeps it, against its session."""
    fields = orjson.loads(session)
    problems: list[str] = []
    posted: dict[int, str] = {}
    total, omitted = int(fields.get("entries") or 0), int(fields["omitted"])
    if total == 0:
        problems.append("the session is of a release that kept no chain: nothing can be said of its timeline")
        return Verification(fields["id"], 0, omitted, None, posted, tuple(problems))
    if len(timeline) + omitted != total:
        problems.append(
            f"{total} entries were written and {omitted} dropped by the bound, but {len(timeline)} are there"
        )
    before = ""
    last: dict[str, Any] = {}
    for number, raw in zip(_numbers(total, omitted), timeline, strict=False):
        entry = _entry(raw)
        after_gap = omitted > 0 and number == LIMITS["timeline_first"] + omitted + 1
        if after_gap and before != fields.get("anchor"):
            problems.append(f"entry {LIMITS['timeline_first']} is not as the session remembers it")
        if entry.get("n") != number:
            problems.append(f"entry {number} is not where it was: entries were removed, added or changed places")
        elif not after_gap and entry.get("prev") != before:
            problems.append(f"entry {number} does not follow on entry {number - 1} as it is now: that was changed")
        before = "sha1:" + hashlib.sha1(raw, usedforsecurity=False).hexdigest()
        if "revision" in entry:
            posted[entry["revision"]] = before
        last = entry if "to" in entry else last
    if before != fields["chain"]:
        problems.append(f"the newest entry ({total}) is not as the session remembers it")
    if last.get("to") != fields["state"]:
        problems.append(f"the session says {fields['state']}, its timeline {last.get('to', 'nothing')}")
    return Verification(fields["id"], total, omitted, fields["chain"], posted, tuple(problems))


def against_ledger(verification: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the ledger's entries of the session (billing's `GET /v1/sessions/{id}`) contradict in a `to_dict`."""
    posted = {each["revision"]: each["evidence_chain"] for each in verification["posted"]}
    problems = []
    for entry in entries:
        data = entry["event"]["data"]
        revision, there = data.get("revision", 0), data.get("evidence_chain")
        here = posted.get(revision)
        if there is not None and here is not None and here != there:
            problems.append(f"the ledger has revision {revision} with the chain {there}, the timeline has {here}")
        elif here is None and there is not None and not verification["omitted"]:
            problems.append(f"the ledger has revision {revision}, the timeline has no entry that posted it")
    return problems


def _numbers(total: int, omitted: int) -> list[int]:
    """The numbers that the entries there must have."""
    if omitted == 0:
        return list(range(1, total + 1))
    first = LIMITS["timeline_first"]
    return [*range(1, first + 1), *range(first + omitted + 1, total + 1)]


def _entry(raw: bytes) -> dict[str, Any]:
    try:
        entry = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return entry if isinstance(entry, dict) else {}

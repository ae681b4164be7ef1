"""Are a session's events as they came, and do they belong together? Pure.

What the ledger can see by itself: that a body still has the digest that was stored with it, and that every revision
names the one before. Each event also carries the digest of the timeline's entry that posted it (`evidence_chain`). The
timeline is the sidecar's: `sidecar sessions verify ID --billing URL` compares it with what stands here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sidecar.billing.ledger.entries import Record


@dataclass(frozen=True, slots=True)
class Check:
    """`problems` is empty when everything is as it was written; `chains` has the timeline's digest by revision."""

    events: int
    chains: Mapping[int, str]
    problems: tuple[str, ...]


def check(rows: Sequence[Record], digests: Mapping[str, str]) -> Check:
    """Check the revisions of a session, oldest first, with the stored digests of their bodies by id."""
    problems = [
        f"the event {row['id']} is not what its digest says: it was changed in the database"
        for row in rows
        if hashlib.sha256(row["body"].encode()).hexdigest() != digests[row["id"]]
    ]
    if rows and rows[0]["revision"] > 0:
        problems.append(f"revision {rows[0]['revision']} is the first that has arrived: what it replaces has not")
    for before, after in pairwise(rows):
        if after["revision"] == before["revision"]:
            problems.append(f"revision {after['revision']} is there twice: {before['id']} and {after['id']}")
        elif after["revision"] > before["revision"] + 1:
            problems.append(f"between revision {before['revision']} and {after['revision']} one has not arrived")
        elif after["reverses"] != before["id"]:
            problems.append(f"revision {after['revision']} replaces {after['reverses']}, not {before['id']}")
    chains = {row["revision"]: json.loads(row["body"])["data"].get("evidence_chain") for row in rows}
    told = {number: chain for number, chain in chains.items() if isinstance(chain, str)}
    return Check(len(rows), told, tuple(problems))

"""Identifiers that come out the same when a step runs again: no clock, no randomness.

Everything here is a pure digest. Explicit ids (a conversation's, a response's) are scoped by tenant; texts are
digested under a secret key, so a digest that leaves the process cannot be guessed back into words.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Key:
    """One name under which a session can be found: `digest` is `alias_digest(tenant, kind, value)`.

    `source` says where an explicit id stood (its locator). It is no part of what the key is: the same id is the same
    name wherever it stands. But two different ids in the same place tell two conversations apart.
    """

    kind: str  # conversation, request, response, tool_call, trace
    digest: str
    source: str = field(default="", compare=False)


def key(tenant: str, kind: str, value: str, source: str = "") -> Key:
    """The key of an id as it was found in traffic or named by a signal."""
    return Key(kind, alias_digest(tenant, kind, value), source)


def alias_digest(tenant: str, kind: str, value: str) -> str:
    """Digest under which an alias is stored; `kind` is conversation, response, tool_call, trace, …"""
    return _sha256_hex(tenant, "alias", kind, value)[:40]


def session_base(tenant: str, *origin: str) -> str:
    """What a session id is made of, before its running number.

    `origin` is ("conversation", id) for a session with an explicit id, else
    ("observation", producer, sequence). The store appends the running number and digests again (`session_id`).
    """
    return _sha256_hex(tenant, *origin)


def session_id(base: str, number: int) -> str:
    """`ses_…`; the Lua store computes the same with `redis.sha1hex` (the base, a SHA-256, carries the strength)."""
    return "ses_" + hashlib.sha1(f"{base}:{number}".encode(), usedforsecurity=False).hexdigest()


def event_id(session: str, revision: int) -> str:
    """`out_…`, at most 100 characters: the id of the posted event of one revision of a session."""
    return "out_" + _sha256_hex(session, str(revision))[:40]


def content_digest(key: bytes, *parts: str | bytes) -> str:
    """`hmac-sha256:…` of texts, under the deployment's hash key (`SIDECAR_HASH_KEY`)."""
    mac = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        raw = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        mac.update(len(raw).to_bytes(8, "big"))
        mac.update(raw)
    return "hmac-sha256:" + mac.hexdigest()


def _sha256_hex(*parts: str) -> str:
    """Length-prefixed, so that no two lists of parts collide by moving a boundary."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.hexdigest()

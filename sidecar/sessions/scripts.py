"""The Lua scripts as Redis gets them: the state table and the bounds as Lua literals, the library, then the script.

A script's own `#!lua flags=…` line has to stand first; everything else is put together here, once per process.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from sidecar.sessions.states import lua_literal, lua_tables

# What bounds one session, one conversation, one tenant. What is over is counted (Store.counters).
LIMITS = {
    "again_seconds": 60,  # an answer that was lost on its way is asked for again
    "aliases": 256,  # per session: the first 8 and the newest
    "aliases_first": 8,
    "attributes": 32,
    "calls": 4096,  # tool-call digests per session
    "events": 10_000,  # moves of sessions that who watches can still be told
    "evidence": 32,
    "merged_hops": 64,  # parts of parts
    "merged_days": 40,  # the id of a session that became a part of another leads there
    "messages": 4096,  # user-message digests per conversation
    "models": 16,
    "number_days": 400,  # a conversation that comes back within these never gets an old session's id
    "recent": 100_000,
    "repeat_minutes": 15,  # a request that was not answered may be sent again
    "siblings": 1024,  # sessions of one conversation that a signal can reach
    "signal_days": 35,  # a signal's (source, id) is remembered
    "stated_hours": 72,  # a statement tells them apart; what became final before them, as one number
    "text_sessions": 32,  # sessions that one text can lead to
    "texts": 256,  # per session, with ids that another session's answer made as well
    "timeline_first": 20,
    "timeline_last": 100,
    "tokens": 99_999_999_999_999,  # of each kind in a session
    "trace_joins": 256,  # calls of one session that are its own by their trace alone
    "went": 512,  # of a producer's last observations is told again where they went: two batches of an applier
    "waiting": 64,  # signals per unknown alias that are taken
    "waiting_over": 1024,  # those taken at the same time, or while Redis was away, included
    "waiting_days": 7,
}

_LIBRARY = (
    "machine",
    "work",
    "commit",
    "session",
    "counts",
    "precedence",
    "texts",
    "made",
    "stitch",
    "merge",
)


@cache
def library() -> str:
    """What stands before every script: TABLE, TIMERS, RANKS, OUTCOMES, LIMITS and the functions."""
    texts = "\n".join(_text(name) for name in _LIBRARY)
    return f"{lua_tables()}local LIMITS = {lua_literal(LIMITS)}\n{texts}\n"


@cache
def script(name: str) -> str:
    """The full text of `lua/<name>.lua`."""
    text = _text(name)
    shebang, _, rest = text.partition("\n")
    if not shebang.startswith("#!"):
        raise ValueError(f"{name}.lua must begin with #!lua and its flags")
    return f"{shebang}\n{library()}{rest}"


def _text(name: str) -> str:
    return resources.files("sidecar.sessions").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")

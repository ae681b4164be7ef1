"""What the observer understands of traffic, taken from the code: docs/traffic.md (`make docs`)."""

from __future__ import annotations

import sys
from pathlib import Path

from sidecar.observer.apis.registry import known_apis
from sidecar.observer.stitch import KNOWN_IDS

_HEAD = """# What is understood of the traffic

The proxy forwards everything. The observer reads the copy: which API is spoken, which conversation a call belongs to,
who the customer is, what the model and its tools did. No text leaves the observer.

## Agent APIs

Whole and streamed, under any base path. A call of an API that is not listed is an exchange of unknown API: it keeps the
session alive that its conversation id names, and its bodies can be judged by rules and read by locators.

| API | what is read |
|---|---|
"""

_IDS = """
Bodies are read through gzip, deflate, br and zstd, within bounds for size, ratio and nesting. What cannot be decoded is
counted (`opaque`), and is still activity of a session that its head names.

## The conversation

The first of these names the session; all that are found lead to it. Your own locators (`SIDECAR_SESSION_KEYS`) come
before them.

"""

_WITHOUT_ID = """
`x-…-session-id` headers are taken only when the value looks like an id (8 letters, digits, `-` or `_` at least), and
never from an `x-…-parent-session-id`. Two different ids in the same place are two conversations, whatever else the
calls share. An id that comes only later is added; when two sessions that are still open turn out to be one, the older
takes the other in, and its evidence says so. What was finalized stays as it is.

## Without an id

Nothing has to be changed in an agent. A call is found again by the first of these that leads to a session:

1. A request's own id (`Idempotency-Key`, `amz-sdk-invocation-id`), which SDKs repeat with each attempt.
2. What an earlier answer made up and the request sends back: the id of the previous response, of a task, of the tool
   calls that it brings results for. Ids that servers number anew (`call_0`) do not count.
3. The request itself, if it is sent again after a failure or an abort, or says that it is (`x-stainless-retry-count`).
4. The history that is sent with it, up to the last answer. System prompts, white space and the results of tools do not
   count. Conversations that look alike stay apart: of as many as stand at the same point, each continuation takes one.
5. Of a history that was trimmed, summarised or edited: the last four answers in it, with their questions or, from 16
   bytes on, alone; then the questions alone.
6. The trace (`traceparent`): so sub-agents, which share no word with the agent that called them, join its session, and
   so do the two sides of an agent when a route in front of it and one behind it are both watched.

So an answer that is generated again, or a message that is edited, stays in its session. Texts are compared as keyed
digests, and only among calls of the same tenant, API key, API and route; of two customers who say the same, each has a
conversation of his own. The user's turns are counted once, on whichever sides they are seen, and what an agent says to
an agent of its own is none.

What no call can tell is a conversation of its own: a sub-agent without a trace, the very first message edited or its
answer generated again, a history of which nothing is left but a summary. A conversation id, in any of the places above,
is always better: look at the metrics to see whether yours arrives.

## Is it wired right?

"""

_END = """
The customer is found by `SIDECAR_CUSTOMER`; [configuration.md](configuration.md#locators) has the grammar of locators.
The first that is found for a session stays.
"""

# How a deployment is wired, as `GET /metrics` tells it.
_METRICS = (
    (
        "`sidecar_exchanges_with_id_ratio`",
        "share of exchanges with a conversation id; 0 with an agent that sends one means that it is not "
        "found: set `SIDECAR_SESSION_KEYS`",
    ),
    (
        "`sidecar_exchanges_with_customer_ratio`",
        "share of exchanges that name a customer; a session needs one that does",
    ),
    (
        "`sidecar_exchanges_per_session`",
        "about the calls of one conversation; near 1, calls do not find their sessions",
    ),
    (
        '`sidecar_tenant_count{what="found_by:…"}`',
        "exchanges by what led to their session: `conversation`, `request`, `response`, `tool_call`, `repeat`"
        " (sent again), `text`, `trace`, `nothing` (it opened one)",
    ),
    (
        '`sidecar_tenant_count{what="customer_conflicts"}`',
        "customers named later that differ from the first, which stays",
    ),
    (
        '`sidecar_tenant_count{what="merged"}`',
        "sessions that turned out to be part of another",
    ),
    (
        '`sidecar_tenant_count{what="keys_of_other_sessions"}`',
        "ids that belong to another session still open: something shared, such as one MCP session for all",
    ),
    (
        '`sidecar_tenant_count{what="ambiguous"}`',
        "histories that fit several conversations; the likeliest was taken",
    ),
    (
        '`sidecar_tenant_count{what="unplaced"}`',
        "failed first calls, and calls of tools, that belong to no session",
    ),
    (
        '`sidecar_tenant_count{what="trace_joins_over"}`',
        "calls that a trace no longer joined, since 256 had been: a trace that never ends",
    ),
    (
        '`sidecar_tenant_count{what="text_sessions_dropped"}`, `…{what="texts_dropped"}`, `…{what="aliases_dropped"}`',
        "bounds: 32 sessions for one text, 256 texts and 256 ids for one session; the oldest go",
    ),
    (
        '`sidecar_events_total{event="observation_early"}`',
        "waits, 3 seconds at most, for another replica that may have seen what a call continues",
    ),
)


def document() -> str:
    """The page."""
    apis = []
    for api in known_apis():
        summary = (sys.modules[type(api).__module__].__doc__ or "").split("\n\n")[0].replace("\n", " ").strip()
        apis.append(f"| `{api.name}` | {summary} |\n")
    ids = [f"{number}. {_shown(name)}\n" for number, name in enumerate(KNOWN_IDS, 1)]
    metrics = ["| metric | tells |\n|---|---|\n", *(f"| {metric} | {text} |\n" for metric, text in _METRICS)]
    return _HEAD + "".join(apis) + _IDS + "".join(ids) + _WITHOUT_ID + "".join(metrics) + _END


def _shown(name: str) -> str:
    return f"`{name}`" if ":" in name else name


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")

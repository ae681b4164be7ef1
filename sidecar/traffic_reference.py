"""What the observer understands of traffic, taken from the code: docs/traffic.md (`make docs`)."""

from __future__ import annotations

import sys
from pathlib import Path

from sidecar.observer.apis.call import MESSAGES_MAX, TOOL_CALLS_MAX
from sidecar.observer.apis.registry import known_apis
from sidecar.observer.codings import CODINGS_MAX, DECODED_BYTES_MAX, RATIO_FREE_BYTES, RATIO_MAX
from sidecar.observer.jsonbytes import MARKS_MAX
from sidecar.observer.stitch import KNOWN_IDS
from sidecar.observer.streams import EVENT_BYTES_MAX, LINES_MAX
from sidecar.observer.thread import KEY_HEADERS, KEY_PARAMETERS
from sidecar.policy.fields import FACTS

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
## The conversation

The first of these names the session; all that are found lead to it. Your own locators (`SIDECAR_SESSION_KEYS`) come
before them.

"""

_READ = """
Of each: the turns of the request with their roles; the assistant's text; tool calls with name, arguments and id; the
tokens of input and output, and those cached and spent on reasoning where the API tells them (a zero is told, what is
absent is not); model; why the answer ended; and whether it came to its end or was cut.

## What rules see

| rule on | facts |
|---|---|
"""

_STATE = """
`text` is what the user says now, or what the answer says; a streamed answer's `body` is the one that it has been put
together to, where the API gives such a body without streaming. `state` is how an agent's task stands (A2A):
`completed`, `failed`, `canceled`, `rejected`, `input-required` or `auth-required`. A cut answer is not judged.
"""

_WITHOUT_ID = """
`x-…-session-id` headers are taken only when the value looks like an id (8 letters, digits, `-` or `_` at least), and
never from an `x-…-parent-session-id`. Two different ids in the same place are two conversations, whatever else the
calls share. An id that comes only later is added; when two sessions that are still open turn out to be one, the older
takes the other in, and its evidence says so. What was finalized stays as it is. In a path, a word that names a method
(`/threads/create_and_run`, `/sessions/current2`) is no id.

## Without an id

Nothing has to be changed in an agent. A call is found again by the first of these that leads to a session:

1. A request's own id (`Idempotency-Key`, `amz-sdk-invocation-id`), which SDKs repeat with each attempt; unless another
   customer is named.
2. What an earlier answer made up and the request sends back: the id of the previous response, of a task, of the tool
   calls that it brings results for; unless another customer is named. Ids of calls that servers number anew (`call_0`)
   or name after the function do not count; short random ones (`call_k3jx9qpl`) do, but for those that could be a name.
   An id that two conversations' answers made, from a cache say, or drawn from a thousand (`chatcmpl-123`), puts nothing
   together: handed on, it leads to the one of the same customer, else of the same history, else of the same key; is
   that not one conversation, or have 32 made the id, what follows decides.
3. The request itself, if it is sent again after a failure or an abort, or says that it is (`x-stainless-retry-count`).
4. The history that is sent with it, up to the last answer. System prompts, white space and the results of tools do not
   count. Conversations that look alike stay apart: of as many as stand at the same point, each continuation takes one.
5. Of a history that was trimmed, summarised or edited: what had been asked before its last four answers, then these
   answers, with their questions or, from 16 bytes on, alone. One sentence may be anybody's: the conversation that is
   meant gave most of those answers, and of several that did it alone has not gone on since.
6. The trace (`traceparent`), unless another customer is named: so sub-agents, which share no word with the agent that
   called them, join its session, and so do the two sides of an agent when a route in front of it and one behind it are
   both watched.

So an answer that is generated again, or a message that is edited, stays in its session. Texts are compared as keyed
digests, and only among calls of the same tenant, API key, API and route (below); of two customers who say the same,
each has a conversation of his own. The user's turns are counted once, on whichever sides they are seen, and what an
agent says to an agent of its own is none. What takes up an answer that nothing had followed is a turn, or a return, in
whatever words.

What no call can tell is a conversation of its own: a sub-agent without a trace, the very first message edited or its
answer generated again, a history of which nothing is left but a summary, or words that several conversations have.
Nothing is guessed there: two conversations put together would be charged as one. A conversation id, in any of the
places above, is always better: look at the metrics to see whether yours arrives.

### Whose key

"""

_KEYS = """
Equal texts under different keys never meet, as long as a key is one that lasts. Credentials that are renewed, or
signed, are known by what stays the same in them:

| credentials | known by |
|---|---|
| a signed request (AWS) | the id of the access key (`AKIA…`) |
| the same with a temporary key (`ASIA…`), which every pod and hour has its own of | region and service |
| a bearer token that is a JWT | `iss` with `sub`, else `client_id`, `azp` or `appid`; without any, the token |
| a Google access token (`ya29.…`) | the project in the path, else the host |

Two agents whose credentials have all that in common, on one route, are one here: where that matters, give each a route,
or a conversation id.

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
        '`sidecar_tenant_count{what="made_twice"}`',
        "ids of answers and tool calls that another conversation's answer had made: a cache, or a server with few ids",
    ),
    (
        '`sidecar_tenant_count{what="signals_ambiguous"}`',
        "signals by such an id, of which nothing tells whom they mean: name the conversation, or the customer",
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
        '`sidecar_tenant_count{what="ambiguous_apart"}`',
        "histories cut down to words that several conversations have: a conversation of its own, nothing is guessed",
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
        "bounds: 32 sessions for one text, or for one id that several answers made; for one session 256 of these, and"
        " 256 other ids; the oldest go",
    ),
    (
        '`sidecar_events_total{event="observation_early"}`',
        "waits, 3 seconds at most, for another replica that may have seen what a call continues",
    ),
)


# Event of `sidecar_events_total`, when, and whether the session is told that a part was not seen (`complete: false`).
_UNREAD = (
    (
        "opaque",
        "a body cannot be read at all (one of those below says why), or another protocol was spoken",
        "see below",
    ),
    ("coding_unknown", "a coding other than gzip, deflate, br and zstd", "no"),
    ("coding_nested", f"more than {CODINGS_MAX} codings in one another, or a thousand members", "yes"),
    ("coding_broken", "garbage where a coding should be", "if the answer is a 2xx"),
    ("body_too_large", f"more than {DECODED_BYTES_MAX >> 20} MiB once decoded", "yes"),
    ("body_too_dense", f"past {RATIO_FREE_BYTES >> 20} MiB, more than {RATIO_MAX} times the coded bytes", "yes"),
    ("too_many_values", f"more than {MARKS_MAX:,} commas and opening brackets in a body", "yes"),
    ("json_too_deep", "JSON nested deeper than 1,024", "yes"),
    ("json_broken", "no JSON where the Content-Type says so", "if the answer is a 2xx"),
    ("json_repaired", "`NaN`, half a character, broken UTF-8, a number that no double holds: replaced, and read", "no"),
    (
        "answer_too_long",
        f"an event of more than {EVENT_BYTES_MAX >> 20} MiB, {LINES_MAX:,} lines, {TOOL_CALLS_MAX} tool calls in an "
        "answer, or another bound on parts of it",
        "yes",
    ),
    ("answer_unended", "an answer came whole, but its API's end was not found in it", "no"),
    ("request_unreadable", "the bytes are not HTTP/1.1", "no"),
    ("response_unreadable", "the same", "no"),
    ("api_failed", "a defect of the sidecar's: the exchange is treated as of unknown API, and logged", "no"),
)


def _unread() -> str:
    rows = "".join(f"| `{event}` | {when} | {told} |\n" for event, when, told in _UNREAD)
    return f"""
## What cannot be read

It is counted in `sidecar_events_total{{event="…"}}`, and is still activity of the session that the exchange's head
names. Of a history of more than {MESSAGES_MAX:,} messages, the newest are read. A copy that the proxy had to cut
([limits.md](limits.md)) is told to the session as well.

| event | when | the session is incomplete |
|---|---|---|
{rows}"""


def document() -> str:
    """The page."""
    apis = []
    for api in known_apis():
        summary = (sys.modules[type(api).__module__].__doc__ or "").split("\n\n")[0].replace("\n", " ").strip()
        apis.append(f"| `{api.name}` | {summary} |\n")
    ids = [f"{number}. {_shown(name)}\n" for number, name in enumerate(KNOWN_IDS, 1)]
    facts = [f"| `{on}` | {', '.join(f'`{name}`' for name in names)} |\n" for on, names in FACTS.items()]
    about = "".join(apis) + _READ + "".join(facts) + _STATE + _unread()
    metrics = ["| metric | tells |\n|---|---|\n", *(f"| {metric} | {text} |\n" for metric, text in _METRICS)]
    return _HEAD + about + _IDS + "".join(ids) + _WITHOUT_ID + _keys() + _KEYS + "".join(metrics) + _END


def _keys() -> str:
    headers, parameters = (", ".join(f"`{name}`" for name in names) for names in (KEY_HEADERS, KEY_PARAMETERS))
    return f"Keys are those of models' APIs, and of gateways: the headers {headers}; the parameters {parameters}.\n"


def _shown(name: str) -> str:
    return f"`{name}`" if ":" in name else name


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")

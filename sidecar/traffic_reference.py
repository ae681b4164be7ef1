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

_TAIL = """
`x-…-session-id` headers are taken only when the value looks like an id (8 letters, digits, `-` or `_` at least), and
never from an `x-…-parent-session-id`. Without any id, a call is found again by what it hands on: the id of the previous
response, those of the tool calls that it brings results for, and last its trace.

The customer is found by `SIDECAR_CUSTOMER`; [configuration.md](configuration.md#locators) has the grammar of locators.
"""


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
    return _HEAD + about + _IDS + "".join(ids) + _TAIL


def _shown(name: str) -> str:
    return f"`{name}`" if ":" in name else name


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")

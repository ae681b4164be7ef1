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

_TAIL = """
`x-…-session-id` headers are taken only when the value looks like an id (8 letters, digits, `-` or `_` at least), and
never from an `x-…-parent-session-id`. Without any id, a call is found again by what it hands on: the id of the previous
response, those of the tool calls that it brings results for, and last its trace.

The customer is found by `SIDECAR_CUSTOMER`; [configuration.md](configuration.md#locators) has the grammar of locators.
"""


def document() -> str:
    """The page."""
    apis = []
    for api in known_apis():
        summary = (sys.modules[type(api).__module__].__doc__ or "").split("\n\n")[0].replace("\n", " ").strip()
        apis.append(f"| `{api.name}` | {summary} |\n")
    ids = [f"{number}. {_shown(name)}\n" for number, name in enumerate(KNOWN_IDS, 1)]
    return _HEAD + "".join(apis) + _IDS + "".join(ids) + _TAIL


def _shown(name: str) -> str:
    return f"`{name}`" if ":" in name else name


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")

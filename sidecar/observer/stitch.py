"""Which conversation an exchange belongs to: every id that names it, in order of precedence. Pure.

How it works. Ids come in three strengths, and a weaker one never finds a session past a stronger one:

1. Explicit: somebody meant it to name the conversation. The deployment's own locators come first, then `KNOWN_IDS`.
   All that are found become keys of kind `conversation`, whatever field they came in; the first names the session.
2. Handed on: ids that an earlier answer made up and that this request sends back: the previous response's, those of
   tool calls that it brings results for. They find a session only where no explicit id is, since a conversation that
   was forked carries the tool calls of the one that it was forked from.
3. The trace, likewise, after all of these.

What this answer makes up (its response id, its tool call ids), and the trace, become aliases: what is sent back later,
in an exchange without an explicit id, finds the session by them. Ids are scoped by tenant through `identity.key`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sidecar.identity import Key, key, session_base
from sidecar.observer.apis.call import Call
from sidecar.observer.exchange import Exchange
from sidecar.observer.locators import Locator, Locators, is_usable, parse_locators

EXPLICIT_IDS_MAX = 8
HANDED_ON_IDS_MAX = 32

# From how many characters on a part of an id is random rather than a word or a number: with letters and digits
# mixed, and with one of them alone.
MIXED_MIN = 8
LETTERS_ALONE_MIN = 16

_ID_SHAPE = re.compile(r"[A-Za-z0-9_-]{8,}")
_PATH_ID_SHAPE = re.compile(r"[A-Za-z0-9_.:~-]+")
_VERSION = re.compile(r"v[0-9]+[a-z0-9.]*")
_SEPARATOR = re.compile(r"[^A-Za-z0-9]+")
_SESSION_HEADER = re.compile(r"x-.+-session-id")
_PARENT_HEADER = re.compile(r"x-(.+-)?parent-session-id")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

# Any `x-…-session-id` header, those of a parent's session left out. Only here must a value look like an id.
ANY_SESSION_HEADER = "any x-…-session-id header"

# Where conversation ids travel today, in order of precedence, as locators. What a path has at `{}` is an id only if
# it looks like one: `/threads/runs` is a method.
KNOWN_IDS: tuple[str, ...] = (
    "header:x-sidecar-session-id",
    ANY_SESSION_HEADER,
    # Codex
    "header:session-id",
    "header:session_id",
    "header:thread-id",
    "header:conversation_id",
    # Gateways and agents with a header of their own
    "header:x-session-id",
    "header:helicone-session-id",
    "header:x-litellm-session-id",
    "header:x-litellm-trace-id",
    "header:x-portkey-trace-id",
    "header:x-openwebui-chat-id",
    "header:x-claude-code-session-id",
    "header:mcp-session-id",
    "response.header:mcp-session-id",  # the answer to `initialize` gives it out
    "header:x-amzn-bedrock-agentcore-runtime-session-id",
    # Bodies
    "body:metadata.session_id",
    "body:metadata.conversation_id",
    "body:litellm_session_id",
    "body:session_id",
    "body:sessionId",
    "body:conversation.id",
    "body:conversation",
    "body:conversation_id",
    "body:conversationId",
    "body:thread_id",
    "body:threadId",
    "body:contextId",
    "body:params.message.contextId",  # A2A over JSON-RPC
    "response.body:result.contextId",
    "baggage:session.id",
    "path:/threads/{}",
    "path:/conversations/{}",
    "path:/sessions/{}",
)
_PREVIOUS_RESPONSE = parse_locators("body:previous_response_id")


@dataclass(frozen=True, slots=True)
class Stitch:
    """The ids of one exchange. `keys` find the session, in order; `made` are aliases only.

    `conversation` is the explicit id in clear, None without one; `base` is what the session's id is made of.
    `unusable` counts values that were too long or had control characters.
    """

    conversation: str | None
    keys: tuple[Key, ...]
    made: tuple[Key, ...]
    base: str
    unusable: int = 0


class Stitcher:
    """Finds the ids of exchanges; `own` are the deployment's locators of the conversation id."""

    def __init__(self, tenant: str, own: Locators) -> None:
        self._tenant = tenant
        self._locators = Locators((*own.each, *(_known(text) for text in KNOWN_IDS)))

    def stitch(self, exchange: Exchange, call: Call | None) -> Stitch:
        """Every id of the exchange; `call` is what it says in its API's terms, None when that is not understood."""
        explicit, unusable = self._locators.find_all(exchange)
        trace = self._keys("trace", _trace(exchange))
        made = self._made(call)
        if explicit:
            keys = self._keys("conversation", explicit[:EXPLICIT_IDS_MAX])
            base = session_base(self._tenant, "conversation", explicit[0])
            return Stitch(explicit[0], keys, made + trace, base, unusable)
        raw = exchange.raw
        base = session_base(self._tenant, "observation", raw.producer, str(raw.first))
        return Stitch(None, self._handed_on(exchange, call) + trace, made, base, unusable)

    def _made(self, call: Call | None) -> tuple[Key, ...]:
        """What the answer brought into the world."""
        if call is None:
            return ()
        response = [call.response_id] if call.response_id and is_usable(call.response_id) else []
        calls = [each.id for each in call.tool_calls] if call.completed else []
        return self._keys("response", response) + self._keys("tool_call", _telling(calls))

    def _handed_on(self, exchange: Exchange, call: Call | None) -> tuple[Key, ...]:
        """What the request sends back, the newest first."""
        previous = _PREVIOUS_RESPONSE.find(exchange).value
        results = _telling(reversed(call.tool_results)) if call else []
        return self._keys("response", [previous] if previous else []) + self._keys("tool_call", results)

    def _keys(self, kind: str, values: Iterable[str]) -> tuple[Key, ...]:
        return tuple(key(self._tenant, kind, value) for value in values)


def _known(text: str) -> Locator:
    """One of `KNOWN_IDS`."""
    if text == ANY_SESSION_HEADER:
        return Locator(text, _any_session_header)
    locator = parse_locators(text).each[0]
    if not text.startswith("path:"):
        return locator

    def read(exchange: Exchange) -> str | None:
        segment = locator.read(exchange)
        return segment if isinstance(segment, str) and _names_something(segment) else None

    return Locator(text, read)


def _any_session_header(exchange: Exchange) -> str | None:
    """By name, so that the order in which they were sent does not matter."""
    for name in sorted(exchange.headers):
        if _SESSION_HEADER.fullmatch(name) and not _PARENT_HEADER.fullmatch(name):
            value = exchange.headers[name]
            if _ID_SHAPE.fullmatch(value):
                return value
    return None


def _names_something(segment: str) -> bool:
    """Whether a path's segment is an id rather than a word or a version of the API."""
    if not _PATH_ID_SHAPE.fullmatch(segment) or _VERSION.fullmatch(segment):
        return False
    return any(char.isdigit() for char in segment) or len(segment) >= LETTERS_ALONE_MIN


def _telling(ids: Iterable[str]) -> list[str]:
    """The ids that cannot be met twice by accident."""
    telling = (each for each in ids if is_usable(each) and is_telling(each))
    return list(dict.fromkeys(telling))[:HANDED_ON_IDS_MAX]


def is_telling(identity: str) -> bool:
    """Whether an id cannot be met twice by accident.

    Some servers number the tool calls of each answer (`call_0`, `functions.lookup:0`): such ids say nothing.
    """
    for run in _SEPARATOR.split(identity.replace("-", "")):
        mixed = not run.isalpha() and not run.isdigit()
        if len(run) >= (MIXED_MIN if mixed else LETTERS_ALONE_MIN):
            return True
    return False


def _trace(exchange: Exchange) -> list[str]:
    """The trace id of a W3C `traceparent`."""
    match = _TRACEPARENT.fullmatch(exchange.headers.get("traceparent", ""))
    return [match[1]] if match and match[1].strip("0") else []

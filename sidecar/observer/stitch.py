"""Which conversation an exchange belongs to: everything that may tell, in order of precedence, as data. Pure.

How it works. What tells comes in strengths, and a weaker thing never joins what a stronger one holds apart:

1. Explicit ids: somebody meant them to name the conversation. The deployment's own locators come first, then
   `KNOWN_IDS`. All that are found become keys of kind `conversation`, whatever place they came in; the first names the
   session. Two different ids in the same place are two conversations.
2. Ids handed on: a request's own, which its client repeats when it sends it again; what an earlier answer made up and
   this request sends back: the previous response's id, a task's, those of tool calls that it brings results for.
3. Texts, where an API has no ids: `thread.py`.
4. The trace.

What this answer makes up (its response id, its tool call ids) are keys for later exchanges that hand them on; that two
answers made the same says nothing (a cache gives one answer to many, some servers draw from a thousand ids). Which
session they lead to is decided in Redis, in the script that applies the observation (sessions/lua/stitch.lua), so that
any replica decides alike. Ids are scoped by tenant through `identity.key`, texts by tenant and API key; whose the key
is (`caller`) tells sessions apart that made the same id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from sidecar.identity import Key, key, session_base
from sidecar.observer.apis.call import Call, ToolCall
from sidecar.observer.exchange import Exchange
from sidecar.observer.locators import Locators, Reader, is_usable, parse_locators, scalar_text
from sidecar.observer.observation import Thread
from sidecar.observer.thread import caller_of, read_thread

EXPLICIT_IDS_MAX = 8
HANDED_ON_IDS_MAX = 32

# An unbroken run of letters and digits is random, rather than a name or a number, from so many characters on: digits
# alone; of letters alone, all that is no word, which is any two small letters or more, or begins as in `camelCase`; of
# letters and digits mixed, all that cannot be read as a word, a number counting two at most. So `call_k3jx9qpl` tells,
# and `getCustomerOrderStatus2025` and `weather2forecast` do not. Nor does `html2pdf`: where a 2 or a 4 stands between
# two parts, as much is asked as of letters alone.
DIGITS_ALONE_MIN = 16
LETTERS_UNWORDED_MIN = 10
MIXED_MIN = 8
MIXED_UNREADABLE_MIN = 4
NUMBER_COUNTS_MAX = 2
# In a path, where a number may be an id: what a mixed run has beside its words, and a long one of small letters alone.
PATH_UNWORDED_MIN = 2
PATH_LETTERS_MIN = 20

_ID_SHAPE = re.compile(r"[A-Za-z0-9_-]{8,}")
_PATH_ID_SHAPE = re.compile(r"[A-Za-z0-9_.:~-]+")
_VERSION = re.compile(r"v[0-9]+[a-z0-9.]*")
_RUN = re.compile(r"[A-Za-z0-9]+")
_WORD = re.compile(r"[A-Z]?[a-z]{2,}")
_PART = re.compile(r"[0-9]+|[A-Z]?[a-z]+|[A-Z]+")
_READABLE = re.compile(r"(?=[a-z]*[aeiouy])(?![a-z]*[^aeiouy]{5})[a-z]{3,}", re.IGNORECASE)
_TO_OR_FOR = re.compile(r"[A-Za-z]+[24][A-Za-z]+")
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_SESSION_HEADER = re.compile(r"x-.+-session-id")
_PARENT_HEADER = re.compile(r"x-(.+-)?parent-session-id")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

# Any `x-…-session-id` header, those of a parent's session left out. Only here must a value look like an id.
ANY_SESSION_HEADER = "any x-…-session-id header"
# What only an API's module can tell: `id` in the body of an AI SDK chat, the context in the stream of an A2A agent.
API_CONVERSATION = "the conversation's id in the API's own terms (the body's `id` of a Vercel AI SDK chat)"

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
    API_CONVERSATION,
    "baggage:session.id",
    "path:/threads/{}",
    "path:/conversations/{}",
    "path:/sessions/{}",
)
# A request's own id, the same in each attempt to send it.
REQUEST_IDS = parse_locators("header:idempotency-key;header:amz-sdk-invocation-id")
_PREVIOUS_RESPONSE = parse_locators("body:previous_response_id")


@dataclass(frozen=True, slots=True)
class Stitch:
    """What one exchange tells. `keys` find the session, in order; `made` are for later ones; `thread` is of its texts.

    `caller` digests whose credentials it had.
    `conversation` is the explicit id in clear, None without one; `base` is what the session's id is made of.
    `unusable` counts values that were too long or had control characters; `over` names the bounds that left ids out.
    """

    conversation: str | None
    keys: tuple[Key, ...]
    made: tuple[Key, ...]
    base: str
    caller: str
    thread: Thread | None = None
    unusable: int = 0
    over: tuple[str, ...] = ()


class Stitcher:
    """Finds the ids of exchanges; `own` are the deployment's locators, `hash_key` keys the digests of texts."""

    def __init__(self, tenant: str, own: Locators, hash_key: bytes) -> None:
        self._tenant = tenant
        self._hash_key = hash_key
        own_sources = ((locator.text, locator.read) for locator in own.each)
        self._sources = (*own_sources, *((text, _known(text)) for text in KNOWN_IDS))

    def stitch(self, exchange: Exchange, call: Call | None) -> Stitch:
        """Everything that tells; `call` is what the exchange says in its API's terms, None when not understood."""
        explicit, unusable, left_out = self._explicit(exchange, call)
        made = self._made(call)
        named = tuple(key(self._tenant, "conversation", value, source) for value, source in explicit.items())
        keys = (*named, *self._handed_on(exchange, call), *self._keys("trace", _trace(exchange)))
        thread = read_thread(self._tenant, self._hash_key, exchange, call) if call is not None else None
        caller = caller_of(self._tenant, self._hash_key, exchange)
        over = (*(["session_keys_over"] if left_out else []), *_over(call))
        if explicit:
            conversation = next(iter(explicit))
            base = session_base(self._tenant, "conversation", conversation)
            return Stitch(conversation, keys, made, base, caller, thread, unusable, over)
        raw = exchange.raw
        base = session_base(self._tenant, "observation", raw.producer, str(raw.first))
        return Stitch(None, keys, made, base, caller, thread, unusable, over)

    def _explicit(self, exchange: Exchange, call: Call | None) -> tuple[dict[str, str], int, int]:
        """Each usable id with the first place that has it, in order; how many were not usable, how many too many."""
        found: dict[str, str] = {}
        unusable = left_out = 0
        for source, read in self._sources:
            raw = read(exchange) if read else (call.conversation if call else None)
            value = scalar_text(raw)
            if value and not is_usable(value):
                unusable += 1
            elif value and (value in found or len(found) < EXPLICIT_IDS_MAX):
                found.setdefault(value, source)
            elif value:
                left_out += 1
        return found, unusable, left_out

    def _made(self, call: Call | None) -> tuple[Key, ...]:
        """What the exchange brought into the world."""
        if call is None:
            return ()
        answers = [each for each in (call.response_id, call.task_id) if each and is_usable(each)]
        calls = [each.id for each in call.tool_calls if _is_told(each)] if call.completed else []
        return (*self._keys("response", answers), *self._keys("tool_call", _telling(calls)))

    def _handed_on(self, exchange: Exchange, call: Call | None) -> Iterator[Key]:
        """What the request brings along, the newest first."""
        requests = (value for value in REQUEST_IDS.find_all(exchange)[0] if is_telling(value))
        yield from self._keys("request", requests)
        previous = _PREVIOUS_RESPONSE.find(exchange).value or (call.previous_response_id if call else None)
        answers = dict.fromkeys(each for each in (previous, call.task_id if call else None) if each)
        yield from self._keys("response", (each for each in answers if is_usable(each)))
        yield from self._keys("tool_call", _telling(reversed(call.tool_results)) if call else [])

    def _keys(self, kind: str, values: Iterable[str]) -> tuple[Key, ...]:
        return tuple(key(self._tenant, kind, value) for value in values)


def _known(text: str) -> Reader | None:
    """The reader of one of `KNOWN_IDS`; None for what the API's module has read."""
    if text == API_CONVERSATION:
        return None
    if text == ANY_SESSION_HEADER:
        return _any_session_header
    locator = parse_locators(text).each[0]
    if not text.startswith("path:"):
        return locator.read

    def read(exchange: Exchange) -> str | None:
        segment = locator.read(exchange)
        return segment if isinstance(segment, str) and _names_something(segment) else None

    return read


def _any_session_header(exchange: Exchange) -> str | None:
    """By name, so that the order in which they were sent does not matter."""
    for name in sorted(exchange.headers):
        if _SESSION_HEADER.fullmatch(name) and not _PARENT_HEADER.fullmatch(name):
            value = exchange.headers[name]
            if _ID_SHAPE.fullmatch(value):
                return value
    return None


def _names_something(segment: str) -> bool:
    """Whether a path's segment is an id rather than a method, a word or a version of the API."""
    if not _PATH_ID_SHAPE.fullmatch(segment) or _VERSION.fullmatch(segment):
        return False
    return _UUID.search(segment) is not None or any(map(_run_names, _RUN.findall(segment)))


def _run_names(run: str) -> bool:
    if run.isdigit():
        return True
    if not run.isalpha():
        return _unworded(run) >= PATH_UNWORDED_MIN
    return _unworded(run) >= LETTERS_UNWORDED_MIN or (run.islower() and len(run) >= PATH_LETTERS_MIN)


def _unworded(run: str) -> int:
    """How many characters are no part of a word."""
    return len(_WORD.sub("", run))


def _is_told(call: ToolCall) -> bool:
    """Whether a call's id tells anything beside the name of what is called."""
    return is_telling(call.id.replace(call.name, "") if call.name else call.id)


def _telling(ids: Iterable[str]) -> list[str]:
    """The first of the ids that cannot be met twice by accident."""
    telling = (each for each in ids if is_usable(each) and is_telling(each))
    return list(islice(dict.fromkeys(telling), HANDED_ON_IDS_MAX))


def _over(call: Call | None) -> list[str]:
    """Of ids that a call brings along or makes there may be more than are looked at: then the bounds by name.

    A history that is resent whole brings those of all its tool calls, of which the newest are looked at: they lead to
    the same session as the others.
    """
    if call is None:
        return []
    results, made = set(call.tool_results), {each.id for each in call.tool_calls} if call.completed else set()
    return [
        *(["handed_on_ids_over"] if len(results) > HANDED_ON_IDS_MAX else []),
        *(["made_ids_over"] if len(made) > HANDED_ON_IDS_MAX else []),
    ]


def is_telling(identity: str) -> bool:
    """Whether an id cannot be met twice by accident: a UUID is in it, or a run of letters and digits looks random.

    Some servers number the tool calls of each answer (`call_0`, `functions.lookup:0`), or name them after the function:
    such ids say nothing.
    """
    return _UUID.search(identity) is not None or any(map(_run_tells, _RUN.findall(identity)))


def _run_tells(run: str) -> bool:
    if run.isdigit():
        return len(run) >= DIGITS_ALONE_MIN
    if run.isalpha():
        return _unworded(run) >= LETTERS_UNWORDED_MIN
    least = LETTERS_UNWORDED_MIN if _TO_OR_FOR.fullmatch(run) else MIXED_UNREADABLE_MIN
    return len(run) >= MIXED_MIN and _unreadable(run) >= least


def _unreadable(run: str) -> int:
    """How many characters are no part of anything that can be read as a word, or as a number."""
    unreadable = 0
    for part in _PART.findall(run):
        if part.isdigit():
            unreadable += min(len(part), NUMBER_COUNTS_MAX)
        elif part.isupper() or not _READABLE.fullmatch(part):
            unreadable += len(part)
    return unreadable


def _trace(exchange: Exchange) -> list[str]:
    """The trace id of a W3C `traceparent`."""
    match = _TRACEPARENT.fullmatch(exchange.headers.get("traceparent", ""))
    return [match[1]] if match and match[1].strip("0") else []

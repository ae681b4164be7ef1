"""Conversations as agents hold them, without any id, each call as bytes with the truth beside it. Seeded.

Of every kind below there are equally many; two in five end with a resolution. A third begin with the same words as
others, half of these get the same answer to them too. What the wire cannot tell is marked, not left out: a call that
begins anew without any link (the first answer regenerated, the first message edited, a sub-agent without a trace, a
history cut down to words that other conversations have too) starts another `part` of its conversation, and pairs of
calls across parts are not judged. In the last of these cases even what the part is put together with is a guess: such
pairs are told apart, and counted like all others beside that (`truth`).
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.stitch.dialects import (
    ANTHROPIC,
    CHAT,
    DIALECTS,
    GEMINI,
    RESPONSES,
    VERCEL,
    Dialect,
    Said,
    Tool,
    answer,
    failure,
    request,
)
from sidecar.wire.records import EndFlag

T0 = 1_795_000_000_000
MODEL_SIDE, USER_SIDE = 0, 1  # listeners
SPREAD_MS = 3_600_000
WHOLE = EndFlag(0)
_OPENINGS = ("Hi", "Hello!", "Where is my order?", "I need help with my invoice.", "How do I reset my password?")
_FREQUENT = ("What are your opening hours?", "How long does delivery take?", "Can I return what I bought?")
_WELCOME = "Hello! How can I help you today?"
_KEYS = ("sk-one-4f81", "sk-two-99ab", "sk-three-07cd")
_WORDS = (
    *("order", "invoice", "parcel", "refund", "account", "password", "address", "delivery", "week", "card", "number"),
    *("change", "cancel", "today", "email", "plan", "upgrade", "device", "battery", "screen", "window", "router"),
    *("signal", "contract", "name", "phone", "store", "return", "label", "box", "warranty"),
)


@dataclass(slots=True)
class Call:
    """One exchange. `alike` is the same for calls that are equal in all that the observer may look at.

    `guess`: its part began with a history of nothing but words that others say too, so whose it is can only be guessed.
    `opens` False: a first request that failed, which belongs to no session.
    """

    conversation: int
    part: int
    kind: str
    started_ms: int
    at_ms: int
    request: bytes
    response: bytes
    flags: EndFlag = WHOLE
    listener: int = MODEL_SIDE
    alike: str = ""
    guess: bool = False
    guesses: int = 0  # how many of its conversation's parts began so
    opens: bool = True
    user_turn: bool = False  # the first sight of a user's message

    @property
    def label(self) -> tuple[int, int]:
        """What calls of one session have in common."""
        return self.conversation, self.part

    @property
    def truth(self) -> tuple[int, int]:
        """The same, with nothing left to a guess."""
        return self.conversation, self.part - self.guesses


@dataclass(slots=True)
class Talk:
    """One conversation in the making."""

    rng: random.Random
    number: int
    kind: str
    dialect: Dialect
    now: int
    calls: list[Call] = field(default_factory=list)
    history: list[Said] = field(default_factory=list)
    system: str = "You help customers."
    headers: dict[str, str] = field(default_factory=dict)
    part: int = 0
    alike: bool = False
    guess: bool = False
    guesses: int = 0
    scope: str = ""  # what stays the same in credentials that are renewed
    chat: str = ""  # its id, where the user's side is seen
    cache: dict[tuple[str, str], tuple[str, Said]] = field(default_factory=dict)  # (API, question): answer and its id
    own: set[str] = field(default_factory=set)  # texts that no other conversation has
    shown: Callable[[list[Said]], list[Said]] = list  # what of the history is sent

    def words(self, low: int, high: int) -> str:
        """A text; in so many words that no other conversation has it."""
        text = " ".join(self.rng.choices(_WORDS, k=self.rng.randint(low, high))) + f" {self.token(5)}."
        self.own.add(text)
        return text

    def token(self, length: int) -> str:
        """Letters and digits."""
        return "".join(self.rng.choices(string.ascii_letters + string.digits, k=length))

    def trace(self) -> None:
        """The calls from here on are of a new trace."""
        trace = "".join(self.rng.choices("0123456789abcdef", k=32))
        self.headers["traceparent"] = f"00-{trace}-00f067aa0ba902b7-01"

    def tool(self, name: str = "") -> Tool:
        """A call with an id as the API's servers make it: random, numbered anew in each answer, or none."""
        identity = f"call_{self.token(24)}" if self.dialect.has_call_ids else ""
        if self.kind == "tools, ids numbered":
            identity = "call_0"
        return Tool(identity, name or self.rng.choice(["lookup", "search", "calendar"]), {"q": self.token(6)})

    def identity(self) -> str:
        """The id of an answer, as the API's servers make it: random, or one of a thousand."""
        if self.kind == "small response ids":
            return f"chatcmpl-{self.rng.randrange(999)}"
        return f"resp_{self.token(20)}"

    def send(
        self,
        said: Said,
        *,
        identity: str = "",
        response: bytes | None = None,
        flags: EndFlag = WHOLE,
        headers: dict[str, str] | None = None,
        user_turn: bool = False,
    ) -> None:
        """One exchange: the history, and `said` as its answer (or `response`, that is none)."""
        shown = self.shown(self.history)
        if len(shown) < len(self.history) and self.own.isdisjoint(said.text for said in shown[:-1]):
            self.part += 1
            self.guesses += 1
            self.guess = True
        sent = request(self.dialect, self.system, shown, self.headers | (headers or {}))
        stream = self.dialect is CHAT and self.rng.random() < 0.5
        got = answer(self.dialect, identity or self.identity(), said, stream=stream) if response is None else response
        started = self.now
        self.now += self.rng.randint(300, 8_000)
        alike = ""
        alone = "traceparent" in self.headers or "x-customer-id" in self.headers
        if (self.alike or identity) and len(self.history) == 1 and not alone:
            key = self.scope or self.headers.get(self.dialect.key_header, "")
            alike = "|".join((self.dialect.name, key, self.history[0].text, said.text if response is None else "-"))
        self.calls.append(
            Call(
                self.number,
                self.part,
                self.kind,
                started,
                self.now,
                sent,
                got,
                flags,
                alike=alike,
                guess=self.guess,
                guesses=self.guesses,
                opens=len(self.history) > 1 or response is None or response.startswith(b"HTTP/1.1 200"),
                user_turn=user_turn,
            )
        )
        self.now += self.rng.randint(5, 50)

    def asks(self) -> None:
        """The user says something."""
        self.now += self.rng.randint(3_000, 60_000)
        opening = self.alike and not self.history
        if opening:
            text = self.rng.choice(_OPENINGS)
        elif self.history and self.rng.random() < 0.25:
            text = self.rng.choice(["yes", "ok thanks", "what about the other one?"])
        else:
            text = self.words(3, 30)
        self.history.append(Said("user", text))

    def reply(self) -> Said:
        """What the model says, texts now and then as other conversations have them too."""
        if self.alike and len(self.history) == 1 and self.rng.random() < 0.5:
            return Said("assistant", _WELCOME)
        if len(self.history) > 2 and self.rng.random() < 0.15:
            return Said(
                "assistant", self.rng.choice(["You're welcome!", "Is there anything else I can help you with?"])
            )
        return Said("assistant", self.words(8, 80))

    def answers(self, *, user_turn: bool = True) -> None:
        """The model answers, and both remember."""
        said = self.reply()
        self.send(said, user_turn=user_turn)
        self.history.append(said)


def _plain(talk: Talk) -> None:
    talk.asks()
    talk.answers()


def _retried(talk: Talk) -> None:
    """Failures, cut streams and lost answers, each sent again by the SDK or by the user."""
    talk.asks()
    how = talk.rng.choice(["", "", "500", "429", "cut", "again", "stop"])
    said, counted = talk.reply(), {"x-stainless-retry-count": "1"}
    if how in ("500", "429"):
        talk.send(said, response=failure(int(how)))
        talk.send(said, headers=counted if talk.rng.random() < 0.5 else {}, user_turn=True)
    elif how in ("cut", "stop"):
        whole = answer(talk.dialect, f"resp_{talk.token(20)}", said, stream=True)
        flag = EndFlag.ABORTED_BY_ORIGIN if how == "cut" else EndFlag.ABORTED_BY_CLIENT
        talk.send(said, response=whole[: len(whole) * 2 // 3], flags=flag, user_turn=True)
        talk.send(said, headers=counted if how == "cut" else {})
    elif how == "again" and (len(talk.history) > 1 or not talk.alike):
        talk.send(talk.reply(), user_turn=True)  # it was answered, but the answer was lost on its way
        talk.send(said, headers=counted)
    else:
        talk.send(said, user_turn=True)
    talk.history.append(said)


def _branched(talk: Talk) -> None:
    """An answer regenerated, or a message edited and answered anew; the first ones begin another part."""
    if talk.history and talk.rng.random() < 0.3:
        talk.now += talk.rng.randint(2_000, 20_000)
        asked = max(n for n, said in enumerate(talk.history) if said.role == "user")
        edits = talk.rng.random() < 0.5
        kept = talk.history[: asked + (0 if edits else 1)]
        if asked == 0:
            talk.part += 1
        talk.history = kept
        if edits:
            talk.history.append(Said("user", talk.words(3, 30)))
        talk.answers(user_turn=edits or asked == 0)
    talk.asks()
    talk.answers()


def _with_tools(talk: Talk) -> None:
    """One to three rounds of calls before the answer, some in parallel, some with a word before them."""
    talk.asks()
    for turn in range(talk.rng.randint(1, 3)):
        calls = tuple(talk.tool() for _ in range(talk.rng.choice([1, 1, 2])))
        said = Said("assistant", talk.rng.choice(["", talk.words(3, 9)]), calls=calls)
        talk.send(said, user_turn=turn == 0)
        talk.history.append(said)
        talk.history += [Said("tool", talk.words(2, 40), tool=call) for call in calls]
        talk.now += talk.rng.randint(20, 3_000)
    said = talk.reply()
    talk.send(said)
    talk.history.append(said)


def _cached(talk: Talk) -> None:
    """A question that many ask, of which a cache has the answer: its text, its id and those of its calls."""
    if talk.rng.random() < 0.5:
        _with_tools(talk)
        return
    talk.now += talk.rng.randint(3_000, 60_000)
    question = talk.rng.choice(_FREQUENT)
    talk.history.append(Said("user", question))
    known = (talk.dialect.name, question)
    if known not in talk.cache:
        talk.cache[known] = talk.identity(), Said("assistant", talk.words(8, 30), calls=(talk.tool(),))
    identity, said = talk.cache[known]
    talk.send(said, identity=identity, user_turn=True)
    talk.history += [said, Said("tool", talk.words(2, 40), tool=said.calls[0])]
    talk.now += talk.rng.randint(20, 3_000)
    talk.answers(user_turn=False)


def _renewed(talk: Talk) -> None:
    """A Google access token, another one for each turn."""
    talk.scope = "google llm.test"
    talk.headers.pop(talk.dialect.key_header, None)
    talk.headers["authorization"] = f"Bearer ya29.c.{talk.token(40)}"
    _plain(talk)


def _with_sub_agents(talk: Talk) -> None:
    """Each turn is a trace; agents of the agent's own work in it, some at the same time."""
    if talk.kind == "sub-agents, traced":
        talk.trace()
    talk.asks()
    calls = tuple(talk.tool("delegate") for _ in range(talk.rng.choice([1, 1, 2])))
    said = Said("assistant", "", calls=calls)
    talk.send(said, user_turn=True)
    talk.history.append(said)
    ends = [_sub_agent(talk) for _call in calls]
    talk.history += [Said("tool", talk.words(5, 40), tool=call) for call in calls]
    talk.now = max(ends) + 20
    said = talk.reply()
    talk.send(said)
    talk.history.append(said)


def _sub_agent(talk: Talk) -> int:
    """Another system prompt, no text in common; when it has ended."""
    sub = Talk(talk.rng, talk.number, talk.kind, talk.dialect, talk.now, calls=talk.calls, headers=talk.headers)
    sub.part = talk.part
    sub.system = f"You are a researcher. {talk.token(8)}"
    if talk.kind != "sub-agents, traced":
        sub.part = 1 + max(call.part for call in talk.calls)
    sub.history = [Said("user", f"Find out: {talk.words(5, 30)}")]
    own = talk.kind != "sub-agents, traced"  # then what it is asked begins a session
    for turn in range(talk.rng.randint(0, 2)):
        said = Said("assistant", "", calls=(sub.tool(),))
        sub.send(said, user_turn=own and turn == 0)
        sub.history += [said, Said("tool", sub.words(3, 30), tool=said.calls[0])]
    sub.send(Said("assistant", sub.words(20, 60)), user_turn=own and len(sub.history) == 1)
    return sub.now


def _two_sided(talk: Talk) -> None:
    """The user's side with the chat's id, the model's side without any; one trace a turn."""
    talk.trace()
    talk.asks()
    began = talk.now
    talk.now += 15
    said = talk.reply()
    talk.send(said)
    talk.history.append(said)
    talk.now += 20
    talk.chat = talk.chat or f"chat-{talk.token(12)}"
    shown = [said for said in talk.history[:-1] if said.role in ("user", "assistant")]
    sent = request(VERCEL, talk.chat, shown, {"traceparent": talk.headers["traceparent"]})
    got = answer(VERCEL, f"msg-{talk.token(16)}", said)
    talk.calls.append(
        Call(talk.number, talk.part, talk.kind, began, talk.now, sent, got, listener=USER_SIDE, user_turn=True)
    )


def _trimmed(history: list[Said]) -> list[Said]:
    """The newest five messages: two answers with the questions before them, and the question."""
    return history[-5:]


def _summarised(history: list[Said]) -> list[Said]:
    """A summary in the agent's own words, the last answer with its question, and the question."""
    if len(history) <= 5:
        return history
    return [Said("user", f"Summary of {len(history)} messages so far: all is well."), *history[-3:]]


def _resolved(talk: Talk) -> None:
    """The model's tool resolves it, then it says goodbye; some users come back, which begins a session of its own."""
    talk.asks()
    call = talk.tool("resolve_conversation")
    said = Said("assistant", "", calls=(call,))
    talk.send(said, user_turn=True)
    talk.history += [said, Said("tool", "done", tool=call)]
    said = talk.reply()
    talk.send(said)
    talk.history.append(said)
    if talk.rng.random() < 0.4:
        talk.now += talk.rng.randint(60_000, 600_000)
        talk.part += 100
        _plain(talk)
        KINDS[talk.kind](talk)


def _new_system(talk: Talk) -> None:
    talk.system = f"You help customers. The time is {talk.now}."
    _plain(talk)


KINDS: dict[str, Callable[[Talk], None]] = {
    "plain": _plain,
    "retries, aborts": _retried,
    "branches": _branched,
    "history trimmed": _plain,
    "history summarised": _plain,
    "system prompt changes": _new_system,
    "tools": _with_tools,
    "tools, ids numbered": _with_tools,
    "sub-agents, traced": _with_sub_agents,
    "sub-agents, no trace": _with_sub_agents,
    "two sides, traced": _two_sided,
    "cached answers": _cached,
    "small response ids": _with_tools,
    "renewed credentials": _renewed,
}
_DIALECTS = {
    "retries, aborts": (CHAT,),
    "tools, ids numbered": (CHAT,),
    "cached answers": (CHAT, RESPONSES, ANTHROPIC),
    "small response ids": (CHAT,),
    "renewed credentials": (CHAT, GEMINI),
}
_CUSTOMERS = ("cached answers", "small response ids")  # half of these name one
_SHOWN = {"history trimmed": _trimmed, "history summarised": _summarised}


def write(seed: int, conversations: int) -> list[Call]:
    """That many conversations of 2 to 12 turns, their calls in the order in which they end."""
    rng = random.Random(seed)
    calls: list[Call] = []
    cache: dict[tuple[str, str], tuple[str, Said]] = {}
    for number in range(conversations):
        kind = list(KINDS)[number % len(KINDS)]
        dialect = rng.choice(_DIALECTS.get(kind, DIALECTS))
        talk = Talk(rng, number, kind, dialect, T0 + rng.randrange(SPREAD_MS))
        talk.alike = number % 3 == 0
        talk.shown = _SHOWN.get(kind, list)
        prefix = "Bearer " if dialect.key_header == "authorization" else ""
        talk.headers[dialect.key_header] = prefix + rng.choice(_KEYS)
        talk.cache = cache
        if kind in _CUSTOMERS and rng.random() < 0.5:
            talk.headers["x-customer-id"] = f"cust-{number}"
        for _ in range(rng.randint(2, 12)):
            KINDS[kind](talk)
        if kind != "two sides, traced" and rng.random() < 0.4:
            _resolved(talk)
        calls += talk.calls
    return sorted(calls, key=lambda call: (call.at_ms, call.started_ms, call.conversation))

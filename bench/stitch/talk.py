"""One conversation in the making: what is said in it, and its calls as bytes with the truth beside them."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.stitch.dialects import CHAT, Dialect, Said, Tool, answer, request
from sidecar.wire.records import EndFlag

MODEL_SIDE, USER_SIDE = 0, 1  # listeners
WHOLE = EndFlag(0)
SMALL_IDS = 999  # so many ids of answers Ollama's chat completions have
_OPENINGS = ("Hi", "Hello!", "Where is my order?", "I need help with my invoice.", "How do I reset my password?")
_WELCOME = "Hello! How can I help you today?"
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
            return f"chatcmpl-{self.rng.randrange(SMALL_IDS)}"
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

"""What the fake LLM says, and how it counts: the part that both of its dialects share."""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

PIECE_CHARACTERS = 12  # how much text, or how much of a call's arguments, one streamed event carries

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call that the model makes."""

    name: str
    arguments: Json


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says: text, or tool calls (with a word of text before them), and whether it was cut short."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    cut: bool = False

    def tokens(self) -> int:
        """Tokens of the answer, counted like `tokens`."""
        return tokens(self.text) + sum(tokens(call.name + json.dumps(call.arguments)) for call in self.calls)


@dataclass(frozen=True, slots=True)
class Heard:
    """What a request ends with: the user's words, or the names of the tools whose results came back."""

    user: str = ""
    results: tuple[str, ...] = ()
    tools: frozenset[str] = field(default_factory=frozenset)  # what the request lets the model call


AFTER_TOOL = {
    "lookup_order": "I found it: your order left our warehouse yesterday and arrives tomorrow by noon.",
    "resolve_conversation": "Wonderful. I have marked this as resolved; write again whenever you need us.",
    "transfer_to_human": "A colleague has your whole story now and will answer in this chat shortly.",
}
TOPICS = {
    "password": "Open Settings, choose Security, then Reset password. The link in the mail works for an hour.",
    "refund": "A refund goes back to the card you paid with and shows there within five working days.",
    "invoice": "Your invoices are under Account, Billing. Each one can be downloaded as a PDF.",
    "thank": "You are very welcome. Have a good day!",
}
OTHERWISE = "Could you tell me a little more about it? Then I can look into it right away."


def decide(heard: Heard) -> Answer:
    """The script: a pure function of what the request ends with."""
    if heard.results:
        return Answer(AFTER_TOOL.get(heard.results[-1], "Done. Is there anything else?"))
    words = heard.user.lower()
    calls: tuple[Call, ...] = ()
    if re.search(r"\b(human|real person|colleague)\b", words):
        calls = (Call("transfer_to_human", {"reason": "the customer asked for a person"}),)
    elif re.search(r"\b(solved|fixed|works now|all set)\b", words):
        calls = (Call("resolve_conversation", {"summary": "the customer confirmed the answer"}),)
    elif "order" in words:
        calls = tuple(Call("lookup_order", {"order_id": number}) for number in re.findall(r"\d{3,}", words))
    if calls and all(call.name in heard.tools for call in calls):
        return Answer("Let me take care of that.", calls)
    return Answer(next((text for topic, text in TOPICS.items() if topic in words), OTHERWISE))


def tokens(text: str) -> int:
    """Tokens of a text, as a rule of thumb has it: four characters each, begun ones whole."""
    return -(-len(text) // 4)


def limited(answer: Answer, tokens_max: int | None) -> Answer:
    """The answer cut at the request's token limit; calls are never cut, as half a call is of no use to a test."""
    if answer.calls or tokens_max is None or answer.tokens() <= tokens_max:
        return answer
    return Answer(answer.text[: tokens_max * 4], cut=True)


def pieces(text: str) -> Iterator[str]:
    """A text as a stream delivers it."""
    for start in range(0, len(text), PIECE_CHARACTERS):
        yield text[start : start + PIECE_CHARACTERS]


def make_id(prefix: str, length: int) -> str:
    """A provider's random id."""
    alphabet = string.ascii_letters + string.digits
    return prefix + "".join(secrets.choice(alphabet) for _ in range(length))


class BadRequestError(Exception):
    """The request is not one that the provider accepts; the text says what to change."""


def texts(content: Any) -> str:
    """The words of a message's content: a string, or a list of parts of which the text ones count."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(
            part.get("text", "") for part in content if isinstance(part, dict) and part.get("type") == "text"
        )
    return ""

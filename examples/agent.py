"""A small customer-support agent on the official OpenAI and Anthropic SDKs.

    OPENAI_API_KEY=… python examples/agent.py "Where is my order 1042?" "Great, that is solved."
    ANTHROPIC_API_KEY=… python examples/agent.py --provider anthropic --stream       # type, line by line

Where it calls is the SDKs' own business: OPENAI_BASE_URL and ANTHROPIC_BASE_URL. The one thing it does beyond any
tutorial is to say, in two request headers, which conversation a call belongs to and for whom it works
(`Agent.headers`), so that whoever reads its traffic need not guess.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import anthropic
import openai

SYSTEM = (
    "You are the support agent of a web shop. Look up orders before you speak about them. When the customer says"
    " that the matter is settled, call resolve_conversation. When they want a person, call transfer_to_human."
)
STEPS_MAX = 8  # model calls for one user message: a model that only calls tools must not run for ever


# The agent's tools -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as the model sees it. `ends` the agent's work: after it, nobody waits for another word."""

    name: str
    description: str
    argument: str
    run: Callable[[str], dict[str, Any]]
    ends: bool = False

    @property
    def schema(self) -> dict[str, object]:
        """JSON schema of the arguments: here always one string."""
        properties = {self.argument: {"type": "string"}}
        return {"type": "object", "properties": properties, "required": [self.argument]}


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "lookup_order",
            "Look up one order by its number.",
            "order_id",
            lambda order_id: {"order_id": order_id, "status": "shipped", "arrives": "tomorrow"},
        ),
        Tool(
            "resolve_conversation",
            "Mark the customer's matter as resolved.",
            "summary",
            lambda summary: {"status": "resolved", "summary": summary},
            ends=True,
        ),
        Tool(
            "transfer_to_human",
            "Hand the conversation over to a person.",
            "reason",
            lambda reason: {"status": "transferred", "reason": reason},
            ends=True,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call of the model."""

    id: str
    name: str
    arguments: dict[str, Any]

    def run(self) -> str:
        """The tool's result as JSON; a mistake of the model is told to the model."""
        try:
            tool = TOOLS[self.name]
            return json.dumps(tool.run(self.arguments[tool.argument]))
        except KeyError as missing:
            return json.dumps({"error": f"no such tool or argument: {missing}"})


# The two providers -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the model, with what the provider says it cost."""

    text: str
    calls: list[Call]
    input_tokens: int
    output_tokens: int


class Chat(Protocol):
    """One conversation with one provider: what was said is kept here, in the provider's own form."""

    def say(self, text: str) -> None:
        """Add the user's words."""

    def give(self, results: list[tuple[Call, str]]) -> None:
        """Add the results of the tools that the model called last."""

    async def reply(self, headers: dict[str, str]) -> Reply:
        """Ask the model to go on."""


class OpenAIChat:
    """Chat Completions."""

    def __init__(self, client: openai.AsyncOpenAI, model: str = "gpt-4o", *, stream: bool = False) -> None:
        self._client, self._model, self._stream = client, model, stream
        self._messages: list[Any] = [{"role": "system", "content": SYSTEM}]
        self._tools: list[Any] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.schema},
            }
            for tool in TOOLS.values()
        ]

    def say(self, text: str) -> None:
        """Add the user's words."""
        self._messages.append({"role": "user", "content": text})

    def give(self, results: list[tuple[Call, str]]) -> None:
        """Add the results of the tools that the model called last."""
        self._messages += [{"role": "tool", "tool_call_id": call.id, "content": result} for call, result in results]

    async def reply(self, headers: dict[str, str]) -> Reply:
        """Ask the model to go on."""
        request: dict[str, Any] = {
            "model": self._model,
            "messages": self._messages,
            "tools": self._tools,
            "extra_headers": headers,
        }
        if self._stream:
            async with self._client.chat.completions.stream(
                **request, stream_options={"include_usage": True}
            ) as stream:
                completion: Any = await stream.get_final_completion()
        else:
            completion = await self._client.chat.completions.create(**request)
        message, usage = completion.choices[0].message, completion.usage
        self._messages.append(_openai_history(message))
        calls = [
            Call(call.id, call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()
        ]
        return Reply(message.content or "", calls, usage.prompt_tokens, usage.completion_tokens)


def _openai_history(message: Any) -> dict[str, Any]:
    """The assistant's message as the next request resends it."""
    resent: dict[str, Any] = {"role": "assistant", "content": message.content}
    if message.tool_calls:
        resent["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
            for call in message.tool_calls
        ]
    return resent


class AnthropicChat:
    """Messages."""

    def __init__(
        self, client: anthropic.AsyncAnthropic, model: str = "claude-sonnet-5", *, stream: bool = False
    ) -> None:
        self._client, self._model, self._stream = client, model, stream
        self._messages: list[Any] = []
        self._tools: list[Any] = [
            {"name": tool.name, "description": tool.description, "input_schema": tool.schema} for tool in TOOLS.values()
        ]

    def say(self, text: str) -> None:
        """Add the user's words: to the tool results that wait for an answer, when there are some."""
        self._add({"type": "text", "text": text})

    def give(self, results: list[tuple[Call, str]]) -> None:
        """Add the results of the tools that the model called last."""
        for call, result in results:
            self._add({"type": "tool_result", "tool_use_id": call.id, "content": result})

    def _add(self, block: dict[str, Any]) -> None:
        if not self._messages or self._messages[-1]["role"] != "user":
            self._messages.append({"role": "user", "content": []})
        self._messages[-1]["content"].append(block)

    async def reply(self, headers: dict[str, str]) -> Reply:
        """Ask the model to go on."""
        request: dict[str, Any] = {
            "model": self._model,
            "max_tokens": 1024,
            "system": SYSTEM,
            "messages": self._messages,
            "tools": self._tools,
            "extra_headers": headers,
        }
        if self._stream:
            async with self._client.messages.stream(**request) as stream:
                message: Any = await stream.get_final_message()
        else:
            message = await self._client.messages.create(**request)
        self._messages.append({"role": "assistant", "content": [_anthropic_history(part) for part in message.content]})
        text = "".join(part.text for part in message.content if part.type == "text")
        calls = [Call(part.id, part.name, dict(part.input)) for part in message.content if part.type == "tool_use"]
        return Reply(text, calls, message.usage.input_tokens, message.usage.output_tokens)


def _anthropic_history(part: Any) -> dict[str, Any]:
    """One block of the assistant's message as the next request resends it."""
    if part.type == "text":
        return {"type": "text", "text": part.text}
    return {"type": "tool_use", "id": part.id, "name": part.name, "input": part.input}


# The loop --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Agent:
    """One conversation with one customer.

    `goodbye` sends even the result of a tool that ends the work back to the model, for a parting word.
    """

    chat: Chat
    conversation: str = field(default_factory=lambda: f"conversation-{uuid.uuid4().hex[:12]}")
    customer: str = "walk-in"
    goodbye: bool = True
    replies: list[Reply] = field(default_factory=list)

    @property
    def headers(self) -> dict[str, str]:
        """Which conversation this is, and for whom."""
        return {"X-Session-Id": self.conversation, "X-Customer-Id": self.customer}

    async def answer(self, text: str) -> str:
        """The agent's answer to the user's next message, after whatever tools it took."""
        self.chat.say(text)
        for _ in range(STEPS_MAX):
            reply = await self.chat.reply(self.headers)
            self.replies.append(reply)
            if not reply.calls:
                return reply.text
            self.chat.give([(call, call.run()) for call in reply.calls])
            if not self.goodbye and any(call.name in TOOLS and TOOLS[call.name].ends for call in reply.calls):
                return reply.text
        return "I am sorry, I cannot find this out. Let me get back to you."


def typed() -> Iterator[str]:
    """What the user types, until an empty line or the end of input."""
    while line := input("you> ").strip():
        yield line


async def converse(agent: Agent, lines: Iterator[str]) -> None:
    """Carry on the conversation and print it."""
    for line in lines:
        print(f"user:  {line}")
        seen = len(agent.replies)
        answer = await agent.answer(line)
        for call in (call for reply in agent.replies[seen:] for call in reply.calls):
            print(f"       [{call.name} {json.dumps(call.arguments)}]")
        print(f"agent: {answer}")
    used = sum(reply.input_tokens for reply in agent.replies), sum(reply.output_tokens for reply in agent.replies)
    print(f"       {len(agent.replies)} model calls, {used[0]} tokens in, {used[1]} tokens out", file=sys.stderr)


async def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("lines", nargs="*", help="what the user says; nothing: you type it")
    parser.add_argument("--provider", choices=["openai", "anthropic"], default="openai")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--customer", default="walk-in", help="who is served, as billing knows them")
    parser.add_argument("--every", type=float, metavar="SECONDS", help="hold the conversation again and again")
    options = parser.parse_args()
    while True:
        chat: Chat = (
            OpenAIChat(openai.AsyncOpenAI(), stream=options.stream)
            if options.provider == "openai"
            else AnthropicChat(anthropic.AsyncAnthropic(), stream=options.stream)
        )
        await converse(Agent(chat, customer=options.customer), iter(options.lines) if options.lines else typed())
        if options.every is None:
            break
        await asyncio.sleep(options.every)


if __name__ == "__main__":
    asyncio.run(main())

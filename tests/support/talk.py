"""Conversations for tests, through the official SDKs, sync and async, with what must be billed for each.

The example agent holds the async ones; the sync ones are held by a plain loop over the sync clients.
"""

import asyncio
import json
from dataclasses import dataclass, field

import agent as example
import anthropic
import openai

LINES = {
    "resolved": ["Where is my order 1042?", "Great, that is solved."],
    "escalated": ["I cannot find my invoice", "I want a human."],
    "abandoned": ["How do I reset my password?"],
}
STATES = {"resolved": "RESOLVED", "escalated": "NOT_BILLABLE", "abandoned": "INCONCLUSIVE"}
ENDS = {"resolve_conversation", "transfer_to_human"}


@dataclass
class Talk:
    """One conversation and what the client saw of it."""

    conversation: str
    kind: str
    customer: str
    provider: str = "openai"
    stream: bool = False
    sync: bool = False
    replies: list = field(default_factory=list)
    turns: int = 0

    def expected(self):
        """What the posted event must say: counts as of the reply that ended the session."""
        counted = []
        for reply in self.replies:
            counted.append(reply)
            if any(call.name in ENDS for call in reply.calls):
                break
        return {
            "state": STATES[self.kind],
            "customer": self.customer,
            "turns": self.turns,
            "llm_calls": len(counted),
            "tool_calls": sum(len(reply.calls) for reply in counted),
            "tokens": {
                "input": sum(reply.input_tokens for reply in counted),
                "output": sum(reply.output_tokens for reply in counted),
            },
        }


def posted(row):
    """The same figures of a ledger row."""
    data = row["data"]
    names = ("state", "turns", "llm_calls", "tool_calls", "tokens")
    return {"customer": row["subject"]} | {name: data[name] for name in names}


async def hold(talk, url, retries=2):
    """Hold the conversation through `url`."""
    if talk.sync:
        await asyncio.to_thread(_hold_sync, talk, url, retries)
        return
    options = {"api_key": "test-key", "max_retries": retries}
    if talk.provider == "openai":
        client = openai.AsyncOpenAI(base_url=url + "/v1", **options)
        chat = example.OpenAIChat(client, stream=talk.stream)
    else:
        client = anthropic.AsyncAnthropic(base_url=url, **options)
        chat = example.AnthropicChat(client, stream=talk.stream)
    agent = example.Agent(chat, conversation=talk.conversation, customer=talk.customer, replies=talk.replies)
    async with client:
        for line in LINES[talk.kind]:
            talk.turns += 1
            await agent.answer(line)


def _hold_sync(talk, url, retries):
    options = {"api_key": "test-key", "max_retries": retries}
    headers = {"x-session-id": talk.conversation, "x-customer-id": talk.customer}
    chat = (_SyncOpenAI if talk.provider == "openai" else _SyncAnthropic)(url, options, headers, talk.stream)
    with chat.client:
        for line in LINES[talk.kind]:
            talk.turns += 1
            chat.say(line)
            while True:
                reply = chat.reply()
                talk.replies.append(reply)
                if not reply.calls:
                    break
                chat.give(reply.calls)


class _SyncOpenAI:
    def __init__(self, url, options, headers, stream):
        self.client = openai.OpenAI(base_url=url + "/v1", **options)
        self.messages = [{"role": "system", "content": "You help."}]
        self.headers, self.stream = headers, stream
        self.tools = [
            {"type": "function", "function": {"name": tool.name, "description": "", "parameters": tool.schema}}
            for tool in example.TOOLS.values()
        ]

    def say(self, text):
        self.messages.append({"role": "user", "content": text})

    def give(self, calls):
        for call in calls:
            self.messages.append({"role": "tool", "tool_call_id": call.id, "content": call.run()})

    def reply(self):
        request = {"model": "gpt-4o", "messages": self.messages, "tools": self.tools, "extra_headers": self.headers}
        if self.stream:
            with self.client.chat.completions.stream(**request, stream_options={"include_usage": True}) as stream:
                completion = stream.get_final_completion()
        else:
            completion = self.client.chat.completions.create(**request)
        message = completion.choices[0].message
        self.messages.append(message.model_dump(include={"role", "content", "tool_calls"}, exclude_none=True))
        calls = [
            example.Call(call.id, call.function.name, json.loads(call.function.arguments))
            for call in message.tool_calls or ()
        ]
        return example.Reply("", calls, completion.usage.prompt_tokens, completion.usage.completion_tokens)


class _SyncAnthropic:
    def __init__(self, url, options, headers, stream):
        self.client = anthropic.Anthropic(base_url=url, **options)
        self.messages = []
        self.headers, self.stream = headers, stream
        self.tools = [
            {"name": tool.name, "description": "", "input_schema": tool.schema} for tool in example.TOOLS.values()
        ]

    def say(self, text):
        self.messages.append({"role": "user", "content": text})

    def give(self, calls):
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": call.run()} for call in calls]
        self.messages.append({"role": "user", "content": results})

    def reply(self):
        request = {
            "model": "claude-sonnet-5",
            "max_tokens": 1024,
            "messages": self.messages,
            "tools": self.tools,
            "extra_headers": self.headers,
        }
        if self.stream:
            with self.client.messages.stream(**request) as stream:
                message = stream.get_final_message()
        else:
            message = self.client.messages.create(**request)
        content = [part.model_dump(include={"type", "text", "id", "name", "input"}) for part in message.content]
        self.messages.append({"role": "assistant", "content": content})
        calls = [
            example.Call(part.id, part.name, dict(part.input)) for part in message.content if part.type == "tool_use"
        ]
        return example.Reply("", calls, message.usage.input_tokens, message.usage.output_tokens)

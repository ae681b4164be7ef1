"""Plays the script: every conversation at once, through the example agent and the official SDKs, signals included."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import httpx

from sidecar.demo.books import Spoken
from sidecar.demo.ledger import Ledger
from sidecar.demo.script import Await, LastAct, Part, Say, Step, Tell

SIGNAL_SECONDS = 120.0
SIGNAL_RETRY_SECONDS = 0.2
SPEAKING_AT_ONCE = 16  # of the conversations under way; pressing ones do not wait for their turn


@dataclass(slots=True)
class Talk:
    """What one conversation saw: the agent's replies by session, and what went wrong."""

    part: Part
    sessions: list[list[Any]] = field(default_factory=lambda: [[]])
    differences: list[str] = field(default_factory=list)
    asked_s: float = 0.0  # when the user last said something, by a clock of this process
    pressed_s: float = 0.0  # at most so long after what was said before, something pressing was said

    def spoken(self) -> list[Spoken]:
        """The SDK's view of each session."""
        return [
            Spoken(
                llm_calls=len(replies),
                tool_calls=sum(len(reply.calls) for reply in replies),
                input_tokens=sum(reply.input_tokens for reply in replies),
                output_tokens=sum(reply.output_tokens for reply in replies),
            )
            for replies in self.sessions
        ]


class Ensemble:
    """What the conversations share: one client for each SDK, the admin API, the ledger's watch.

    All conversations are under way at once; of their agents so many wait for an answer at a time that none of them
    has to wait long between two model calls. `last_act` is for the stage to set.
    """

    def __init__(self, agent: ModuleType, proxy: str, admin: str, ledger: Ledger) -> None:
        self._agent = agent
        self._ledger = ledger
        self._turns = asyncio.Semaphore(SPEAKING_AT_ONCE)
        self.last_act = asyncio.Event()
        self._admin = httpx.AsyncClient(base_url=admin, trust_env=False, timeout=10.0)
        # trust_env: a proxy that the environment names is for the outside, not for loopback.
        openai, anthropic = agent.openai, agent.anthropic
        self._openai = openai.AsyncOpenAI(
            base_url=f"{proxy}/v1", api_key="demo-key", http_client=openai.DefaultAsyncHttpxClient(trust_env=False)
        )
        self._anthropic = anthropic.AsyncAnthropic(
            base_url=proxy, api_key="demo-key", http_client=anthropic.DefaultAsyncHttpxClient(trust_env=False)
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._openai.close()
        await self._anthropic.close()
        await self._admin.aclose()

    async def play(self, talk: Talk, progress: Callable[[int], None]) -> None:
        """One conversation from its first step to its last; `progress` gets the number of model calls as they end.

        Raises what the SDKs raise; `talk` keeps what came before.
        """
        part = talk.part
        chat = (
            self._agent.OpenAIChat(self._openai, stream=part.stream)
            if part.provider == "openai"
            else self._agent.AnthropicChat(self._anthropic, stream=part.stream)
        )
        agent = self._agent.Agent(
            chat, conversation=part.conversation, customer=part.customer, goodbye=part.scenario.goodbye
        )
        for number, step in enumerate(part.scenario.steps):
            await self._step(talk, agent, step, number, progress)

    async def _step(self, talk: Talk, agent: Any, step: Step, number: int, progress: Callable[[int], None]) -> None:
        match step:
            case Say():
                before = len(agent.replies)
                async with contextlib.nullcontext() if step.pressing else self._turns:
                    asked = time.monotonic()
                    await agent.answer(step.text)
                if step.pressing:
                    talk.pressed_s = max(talk.pressed_s, time.monotonic() - talk.asked_s)
                talk.asked_s = asked
                talk.sessions[-1] += agent.replies[before:]
                progress(len(agent.replies) - before)
            case LastAct():
                await self.last_act.wait()
            case Tell():
                talk.differences += await self._tell(talk.part, step, f"{talk.part.conversation}-{number}")
            case Await():
                if not await self._ledger.wait_session(talk.part.conversation, step.session):
                    talk.differences.append(f"{talk.part}: session {step.session} was never posted")
                if any(isinstance(later, Say) for later in talk.part.scenario.steps[number:]):
                    talk.sessions.append([])  # what the user says next is a return

    async def _tell(self, part: Part, tell: Tell, id_: str) -> list[str]:
        """Send a signal until it is accepted, as a CRM would; every copy after the first must be told a duplicate."""
        signal: dict[str, Any] = {
            "id": id_,
            "source": "demo-crm",
            "alias": {"kind": "conversation", "value": part.conversation},
            "reason": "the demo's script",
        }
        signal |= {"escalated_to_human": True} if tell.escalated else {"outcome": tell.outcome}
        differences = []
        for copy in range(tell.copies):
            answer = await self._post(signal)
            if answer is None or answer.status_code != httpx.codes.ACCEPTED:
                what = "was not answered" if answer is None else f"was answered {answer.status_code}: {answer.text}"
                differences.append(f"{part}: the signal {what}")
            elif copy and not answer.json()["duplicate"]:
                differences.append(f"{part}: copy {copy + 1} of a signal was taken for a new one")
        return differences

    async def _post(self, signal: dict[str, Any]) -> httpx.Response | None:
        answer: httpx.Response | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SIGNAL_SECONDS):
                while True:
                    # No answer, or 503, while the observer is dead: the sender's part is to send again.
                    with contextlib.suppress(httpx.TransportError):
                        answer = await self._admin.post("/v1/signals", json=signal)
                        if not answer.is_server_error:
                            return answer
                    await asyncio.sleep(SIGNAL_RETRY_SECONDS)
        return answer

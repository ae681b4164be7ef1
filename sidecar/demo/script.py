"""The script: what every conversation does, and what must become of it under the demo's plan. Data and pure functions.

The outcomes follow from the table of session states with the plan's times: five seconds in which a resolution may
still turn (`settle_minutes`), and new sessions on return. A thank-you within the settling time belongs to the session
that it thanks for. One that comes after the outcome was posted is a new message, thus a return: a session of its own,
in which nothing is resolved and which costs nothing.

No outcome may depend on how fast the machine is, so there are two acts, and a session keeps the terms that it began
with. In the first act silence ends nothing: what is still to be said, or told by the CRM, may take its time. In the
last act a few seconds of silence mean that the customer has left (`timeout_minutes`), and only sessions begin in it
that consist of one model call, after which nothing is to come in time. The plan's settling time runs in both acts; what
must be said within it, while a resolution is pending, is `pressing`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CONVERSATIONS_MAX = 1000
FIRST_ACT_TIMEOUT_MINUTES = 60
CUSTOMERS = ("northwind", "northwind", "globex", "northwind", "initech")


@dataclass(frozen=True, slots=True)
class Say:
    """The user says something, and the agent answers. `pressing`: before the last resolution has settled."""

    text: str
    pressing: bool = False


@dataclass(frozen=True, slots=True)
class Tell:
    """The CRM tells the sidecar an outcome: `copies` times the same signal, as impatient senders do."""

    outcome: str | None = None
    escalated: bool = False
    copies: int = 1


@dataclass(frozen=True, slots=True)
class Await:
    """Go on when the conversation's session number `session` (from 1) has been posted."""

    session: int = 1


@dataclass(frozen=True, slots=True)
class LastAct:
    """Go on in the last act: when every session of the first is open, and silence ends those that begin from now on."""


Step = Say | Tell | Await | LastAct


@dataclass(frozen=True, slots=True)
class Expected:
    """One session as the ledger must hold it: the state of each revision, and the counts."""

    states: tuple[str, ...]
    turns: int
    llm_calls: int
    tool_calls: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """`goodbye`: the agent sends the result of a tool that ends its work back to the model, for a parting word."""

    name: str
    about: str
    steps: tuple[Step, ...]
    sessions: tuple[Expected, ...]
    goodbye: bool = False

    @property
    def begun_in_first_act(self) -> int:
        """How many of its sessions."""
        begun, fresh = 0, True
        for step in self.steps:
            match step:
                case LastAct():
                    break
                case Await():
                    fresh = True
                case Say():
                    begun, fresh = begun + fresh, False
        return begun


ORDER = Say("Where is my order 1042?")  # looks it up, then answers: two model calls, one tool call
ORDERS = Say("Where are my orders 1042 and 1043?")  # two model calls, two tool calls
PASSWORD = Say("How do I reset my password?")  # one model call
REFUND = Say("How long does a refund take?")
INVOICE = Say("Where do I find my invoice?")
SOLVED = Say("Great, that is solved.")  # calls resolve_conversation
SOLVED_TOO = Say("That one is all set as well.")
HUMAN = Say("I would rather talk to a human.")  # calls transfer_to_human
HUMAN_AFTER_ALL = Say("I would rather talk to a human, after all.", pressing=True)
THANKS = Say("Thank you so much!", pressing=True)
LATE_THANKS = Say("Thank you so much for your help!")

SCENARIOS = (
    Scenario(
        "resolved by tool",
        "the model calls resolve_conversation",
        (ORDER, SOLVED),
        (Expected(("RESOLVED",), turns=2, llm_calls=3, tool_calls=2),),
    ),
    Scenario(
        "resolved by signal",
        "the CRM says so while the session is open",
        (PASSWORD, Tell("RESOLVED")),
        (Expected(("RESOLVED",), turns=1, llm_calls=1, tool_calls=0),),
    ),
    Scenario(
        "resolved by a late signal",
        "the CRM says so after silence had made it inconclusive",
        (LastAct(), REFUND, Await(), Tell("RESOLVED")),
        (Expected(("INCONCLUSIVE", "RESOLVED"), turns=1, llm_calls=1, tool_calls=0),),
    ),
    Scenario(
        "escalated",
        "the user asks about two orders, then the model calls transfer_to_human",
        (ORDERS, HUMAN),
        (Expected(("NOT_BILLABLE",), turns=2, llm_calls=3, tool_calls=3),),
    ),
    Scenario(
        "resolved, then escalated",
        "both, before the resolution has settled",
        (ORDER, SOLVED, HUMAN_AFTER_ALL),
        (Expected(("NOT_BILLABLE",), turns=3, llm_calls=4, tool_calls=3),),
    ),
    Scenario(
        "escalated after posting",
        "the help desk takes over a conversation that was already charged",
        (ORDER, SOLVED, Await(), Tell(escalated=True)),
        (Expected(("RESOLVED", "NOT_BILLABLE"), turns=2, llm_calls=3, tool_calls=2),),
    ),
    Scenario(
        "resolved, thanked",
        "the tool's result is sent back, and the user says thank you",
        (ORDER, SOLVED, THANKS),
        (Expected(("RESOLVED",), turns=3, llm_calls=5, tool_calls=2),),
        goodbye=True,
    ),
    Scenario(
        "abandoned",
        "the user asks once and never writes again",
        (LastAct(), PASSWORD),
        (Expected(("INCONCLUSIVE",), turns=1, llm_calls=1, tool_calls=0),),
    ),
    Scenario(
        "returned",
        "the user comes back with a new question, which is resolved too",
        (ORDER, SOLVED, Await(), REFUND, SOLVED_TOO),
        (
            Expected(("RESOLVED",), turns=2, llm_calls=3, tool_calls=2),
            Expected(("RESOLVED",), turns=2, llm_calls=2, tool_calls=1),
        ),
    ),
    Scenario(
        "signal sent three times",
        "the same resolution, again and again",
        (INVOICE, Tell("RESOLVED", copies=3)),
        (Expected(("RESOLVED",), turns=1, llm_calls=1, tool_calls=0),),
    ),
    Scenario(
        "disputed",
        "the survey after the resolution says that nothing was solved",
        (ORDER, SOLVED, Await(), Tell("UNRESOLVED")),
        (Expected(("RESOLVED", "REVERSED"), turns=2, llm_calls=3, tool_calls=2),),
    ),
    Scenario(
        "thanked late",
        "the thank-you comes after the outcome was posted",
        (ORDER, SOLVED, Await(), LastAct(), LATE_THANKS),
        (
            Expected(("RESOLVED",), turns=2, llm_calls=4, tool_calls=2),
            Expected(("INCONCLUSIVE",), turns=1, llm_calls=1, tool_calls=0),
        ),
        goodbye=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Part:
    """One conversation: who plays which scenario over which API."""

    conversation: str
    scenario: Scenario
    customer: str
    provider: str  # openai or anthropic
    stream: bool

    def __str__(self) -> str:
        how = "streaming" if self.stream else "whole answers"
        return f"{self.conversation} ({self.scenario.name}; {self.provider}, {how})"


def cast(count: int) -> list[Part]:
    """`count` conversations: scenarios in turn, so that 48 of them show each over both APIs, streaming and not."""
    parts = []
    for number in range(count):
        round_number, scenario = divmod(number, len(SCENARIOS))
        parts.append(
            Part(
                conversation=f"demo-conversation-{number:04d}",
                scenario=SCENARIOS[scenario],
                customer=CUSTOMERS[number % len(CUSTOMERS)],
                provider=("openai", "anthropic")[round_number % 2],
                stream=round_number // 2 % 2 == 1,
            )
        )
    return parts


def first_act_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan, parsed, with a timeout that ends no session while the first act is played."""
    rate_plan = plan["rate_plan"]
    config = rate_plan["session_config"] | {"timeout_minutes": FIRST_ACT_TIMEOUT_MINUTES}
    return {"rate_plan": rate_plan | {"session_config": config}}


def sessions(parts: list[Part]) -> Iterator[tuple[Part, int, Expected]]:
    """Every session of the cast with its number within its conversation, from 1."""
    for part in parts:
        for number, expected in enumerate(part.scenario.sessions, 1):
            yield part, number, expected


def begun_in_first_act(parts: list[Part]) -> dict[str, int]:
    """How many sessions of each conversation begin in the first act; those with none are left out."""
    return {part.conversation: begun for part in parts if (begun := part.scenario.begun_in_first_act)}


def events_expected(parts: list[Part]) -> int:
    """How many outcomes must be posted: every revision of every session, once."""
    return sum(len(expected.states) for _, _, expected in sessions(parts))


def calls_expected(parts: list[Part]) -> int:
    """How many model calls the agents make."""
    return sum(expected.llm_calls for _, _, expected in sessions(parts))

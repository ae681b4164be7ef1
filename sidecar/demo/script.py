"""The script: what every conversation does, and what must become of it under the demo's plan. Data and pure functions.

The outcomes follow from the table of session states with the plan's times: five seconds in which a resolution may
still turn (`settle_minutes`), seven seconds of silence until a customer counts as gone (`timeout_minutes`), new
sessions on return. A thank-you within the settling time belongs to the session that it thanks for. One that comes after
the outcome was posted is a new message, thus a return: a session of its own, in which nothing is resolved and which
costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

CONVERSATIONS_MAX = 1000
CUSTOMERS = ("northwind", "northwind", "globex", "northwind", "initech")


@dataclass(frozen=True, slots=True)
class Say:
    """The user says something, and the agent answers."""

    text: str


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


Step = Say | Tell | Await


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


ORDER = Say("Where is my order 1042?")  # looks it up, then answers: two model calls, one tool call
PASSWORD = Say("How do I reset my password?")  # one model call
REFUND = Say("How long does a refund take?")
INVOICE = Say("Where do I find my invoice?")
SOLVED = Say("Great, that is solved.")  # calls resolve_conversation
SOLVED_TOO = Say("That one is all set as well.")
HUMAN = Say("I would rather talk to a human.")  # calls transfer_to_human
THANKS = Say("Thank you so much!")

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
        (REFUND, Await(), Tell("RESOLVED")),
        (Expected(("INCONCLUSIVE", "RESOLVED"), turns=1, llm_calls=1, tool_calls=0),),
    ),
    Scenario(
        "escalated",
        "the model calls transfer_to_human",
        (ORDER, HUMAN),
        (Expected(("NOT_BILLABLE",), turns=2, llm_calls=3, tool_calls=2),),
    ),
    Scenario(
        "resolved, then escalated",
        "both, before the resolution has settled",
        (ORDER, SOLVED, HUMAN),
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
        "the user asks about two orders and never writes again",
        (Say("Where are my orders 1042 and 1043?"),),
        (Expected(("INCONCLUSIVE",), turns=1, llm_calls=2, tool_calls=2),),
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
        (ORDER, SOLVED, Await(), THANKS),
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


def sessions(parts: list[Part]) -> Iterator[tuple[Part, int, Expected]]:
    """Every session of the cast with its number within its conversation, from 1."""
    for part in parts:
        for number, expected in enumerate(part.scenario.sessions, 1):
            yield part, number, expected


def events_expected(parts: list[Part]) -> int:
    """How many outcomes must be posted: every revision of every session, once."""
    return sum(len(expected.states) for _, _, expected in sessions(parts))


def calls_expected(parts: list[Part]) -> int:
    """How many model calls the agents make."""
    return sum(expected.llm_calls for _, _, expected in sessions(parts))

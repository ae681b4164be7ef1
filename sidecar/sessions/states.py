"""The life of a session as a table, and one pure function that reads it.

How it works. A session is in one `State`; facts reach it as `Event`s. `TABLE` says, for every pair that can occur,
which `Transition` follows; where a term of the plan or a window decides between several, the cell is a `Choice` that
names the question, and `_QUESTIONS` answers it from the session's view. A pair that is not in the table is an error,
never a silent default. `advance` looks up the cell and returns a `Decision`; it writes nothing and knows no clock.

The Lua scripts that run inside Redis interpret this very table: `lua_tables` renders it as a Lua literal that is put in
front of them, and a property test holds both interpreters against each other. The diagram in docs/architecture.md is
drawn from it too (`python -m sidecar.sessions.states docs/architecture.md`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sidecar.policy.terms import Terms


class State(StrEnum):
    """The first three are open; the others are final: an outcome was posted."""

    AI_HANDLING = "AI_HANDLING"
    RESOLVED_PENDING = "RESOLVED_PENDING"
    ESCALATED_TO_HUMAN = "ESCALATED_TO_HUMAN"
    RESOLVED = "RESOLVED"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_BILLABLE = "NOT_BILLABLE"
    REVERSED = "REVERSED"


class Event(StrEnum):
    """What can reach a session. `RETURN` is an exchange begun after finalization that brings a new user message."""

    ACTIVITY = "activity"
    RESOLVE = "resolve"
    ESCALATE = "escalate"
    UNRESOLVE = "unresolve"
    IDLE_TIMEOUT = "idle_timeout"
    SETTLE_TIMEOUT = "settle_timeout"
    RETURN = "return"


class Action(StrEnum):
    """What follows from an event, besides the state."""

    NOTHING = "nothing"  # noted in the timeline
    RESTART = "restart"  # the running timer starts again
    MOVE = "move"  # another open state, with its own timer
    FINALIZE = "finalize"  # revision 0 is posted
    REVISE = "revise"  # the next revision is posted; it replaces its predecessor
    LATE = "late"  # the window of revisions is closed: noted, nothing else
    TRAIL = "trail"  # after the end: in the timeline, nowhere else
    FOLLOW = "follow"  # trails, and moves the last activity, so that the aftercare goes on
    NEW_SESSION = "new_session"  # the conversation goes on in a session of its own


@dataclass(frozen=True, slots=True)
class Transition:
    """One outcome of a cell. `to` None: the state stays; `assumed`: nobody confirmed; `held`: an operator decides."""

    action: Action
    to: State | None = None
    assumed: bool = False
    held: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """A cell with several outcomes; `question` is a name in `_QUESTIONS`, `answers` its possible answers."""

    question: str
    answers: Mapping[str, Transition]


Cell = Transition | Choice


@dataclass(frozen=True, slots=True)
class View:
    """What `advance` needs to know of a session. Times are Unix milliseconds of event time."""

    state: State
    deadline_ms: int
    last_ms: int  # last activity
    terms: Terms
    finalized_ms: int = 0  # of the first finalization; 0 while open


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens: the state after, the action, and the deadline that then runs (0: none)."""

    state: State
    action: Action
    deadline_ms: int = 0
    assumed: bool = False
    held: bool = False


class IllegalMoveError(ValueError):
    """The table has no such cell: the caller mistook the session's state."""


def _revise(to: State) -> Choice:
    return Choice("window", {"open": Transition(Action.REVISE, to), "closed": Transition(Action.LATE)})


_NOTHING = Transition(Action.NOTHING)
_RESTART = Transition(Action.RESTART)
_TRAIL = Transition(Action.TRAIL)
_NEW_SESSION = Transition(Action.NEW_SESSION)
_ESCALATE = Transition(Action.MOVE, State.ESCALATED_TO_HUMAN)

TABLE: Mapping[State, Mapping[Event, Cell]] = {
    State.AI_HANDLING: {
        Event.ACTIVITY: _RESTART,
        Event.RESOLVE: Transition(Action.MOVE, State.RESOLVED_PENDING),
        Event.ESCALATE: _ESCALATE,
        Event.UNRESOLVE: _NOTHING,
        Event.IDLE_TIMEOUT: Choice(
            "inconclusive_policy",
            {
                "NO_CHARGE": Transition(Action.FINALIZE, State.INCONCLUSIVE),
                "CHARGE": Transition(Action.FINALIZE, State.RESOLVED, assumed=True),
                "HOLD": Transition(Action.FINALIZE, State.RESOLVED, assumed=True, held=True),
            },
        ),
    },
    State.RESOLVED_PENDING: {
        Event.ACTIVITY: _RESTART,
        Event.RESOLVE: _NOTHING,
        Event.ESCALATE: _ESCALATE,
        Event.UNRESOLVE: Transition(Action.MOVE, State.AI_HANDLING),
        Event.SETTLE_TIMEOUT: Transition(Action.FINALIZE, State.RESOLVED),
    },
    State.ESCALATED_TO_HUMAN: {
        Event.ACTIVITY: _NOTHING,
        Event.RESOLVE: _NOTHING,
        Event.ESCALATE: _NOTHING,
        Event.UNRESOLVE: _NOTHING,
        Event.SETTLE_TIMEOUT: Transition(Action.FINALIZE, State.NOT_BILLABLE),
    },
    State.RESOLVED: {
        Event.ACTIVITY: _TRAIL,
        Event.RESOLVE: _NOTHING,
        Event.ESCALATE: _revise(State.NOT_BILLABLE),
        Event.UNRESOLVE: _revise(State.REVERSED),
        Event.RETURN: Choice(
            "on_return",
            {
                "NEW_SESSION": _NEW_SESSION,
                "REVERSE": Transition(Action.NEW_SESSION, State.REVERSED),
            },
        ),
    },
    State.INCONCLUSIVE: {
        Event.ACTIVITY: _TRAIL,
        Event.RESOLVE: _revise(State.RESOLVED),
        Event.ESCALATE: _revise(State.NOT_BILLABLE),
        Event.UNRESOLVE: _NOTHING,
        Event.RETURN: _NEW_SESSION,
    },
    State.NOT_BILLABLE: {
        Event.ACTIVITY: Transition(Action.FOLLOW),
        Event.RESOLVE: _NOTHING,
        Event.ESCALATE: _NOTHING,
        Event.UNRESOLVE: _NOTHING,
        Event.RETURN: Choice("aftercare", {"open": Transition(Action.FOLLOW), "closed": _NEW_SESSION}),
    },
    State.REVERSED: {
        Event.ACTIVITY: _TRAIL,
        Event.RESOLVE: _NOTHING,
        Event.ESCALATE: _revise(State.NOT_BILLABLE),
        Event.UNRESOLVE: _NOTHING,
        Event.RETURN: _NEW_SESSION,
    },
}

# The timer that runs in each open state: the event it fires, and the term that is its length (None: it fires at once).
TIMERS: Mapping[State, tuple[Event, str | None]] = {
    State.AI_HANDLING: (Event.IDLE_TIMEOUT, "timeout_ms"),
    State.RESOLVED_PENDING: (Event.SETTLE_TIMEOUT, "settle_ms"),
    State.ESCALATED_TO_HUMAN: (Event.SETTLE_TIMEOUT, None),
}

# Of two open sessions that turn out to be one, the state that is further on stays: escalation wins.
RANKS: Mapping[State, int] = {state: rank for rank, state in enumerate(TIMERS)}

# The outcome that a final state is posted with; RESOLVED may bear the name that a plan or signal gave instead.
OUTCOMES: Mapping[State, str] = {
    State.RESOLVED: "RESOLVED",
    State.NOT_BILLABLE: "ESCALATED_TO_HUMAN",
    State.INCONCLUSIVE: "INCONCLUSIVE",
    State.REVERSED: "UNRESOLVED",
}


def is_open(state: State) -> bool:
    """Whether a session in `state` is still to be finalized."""
    return state in TIMERS


def _window(view: View, at_ms: int) -> str:
    return "open" if at_ms - view.finalized_ms <= view.terms.reversal_ms else "closed"


def _on_return(view: View, at_ms: int) -> str:
    reverses = view.terms.on_return == "REVERSE" and _window(view, at_ms) == "open"
    return "REVERSE" if reverses else "NEW_SESSION"


def _aftercare(view: View, at_ms: int) -> str:
    return "open" if at_ms - view.last_ms <= view.terms.reversal_ms else "closed"


def _inconclusive_policy(view: View, _at_ms: int) -> str:
    return view.terms.inconclusive_policy


# machine.lua answers the same questions under the same names.
_QUESTIONS: Mapping[str, Callable[[View, int], str]] = {
    "inconclusive_policy": _inconclusive_policy,
    "on_return": _on_return,
    "window": _window,
    "aftercare": _aftercare,
}


def timer_ms(state: State, terms: Terms) -> int:
    """Length of the timer of an open state; 0 fires at once."""
    term = TIMERS[state][1]
    return int(getattr(terms, term)) if term else 0


def advance(view: View, event: Event, at_ms: int) -> Decision:
    """What `event` at `at_ms` does to a session. Raises `IllegalMoveError` for a pair that the table does not have."""
    cell = TABLE[view.state].get(event)
    if cell is None:
        raise IllegalMoveError(f"no move from {view.state} on {event}")
    if isinstance(cell, Choice):
        cell = cell.answers[_QUESTIONS[cell.question](view, at_ms)]
    state = cell.to or view.state
    return Decision(state, cell.action, _deadline(view, cell.action, state, at_ms), cell.assumed, cell.held)


def _deadline(view: View, action: Action, state: State, at_ms: int) -> int:
    """Facts of several replicas arrive in any order: a timer never runs backwards."""
    if action == Action.MOVE:
        return max(at_ms, view.last_ms) + timer_ms(state, view.terms)
    if action == Action.RESTART:
        return max(view.deadline_ms, at_ms + timer_ms(state, view.terms))
    return view.deadline_ms if is_open(state) else 0


# -- the same table in Lua ---------------------------------------------------------------------------------------


def lua_tables() -> str:
    """The table, timers, ranks and outcomes as Lua source: locals TABLE, TIMERS, RANKS, OUTCOMES."""
    table = {state: {event: _plain(cell) for event, cell in row.items()} for state, row in TABLE.items()}
    timers = {
        state: {"event": event, "term": term} if term else {"event": event} for state, (event, term) in TIMERS.items()
    }
    return (
        f"local TABLE = {lua_literal(table)}\n"
        f"local TIMERS = {lua_literal(timers)}\n"
        f"local RANKS = {lua_literal(RANKS)}\n"
        f"local OUTCOMES = {lua_literal(OUTCOMES)}\n"
    )


def _plain(cell: Cell) -> Mapping[str, object]:
    if isinstance(cell, Choice):
        return {"question": cell.question, "answers": {k: _plain(v) for k, v in cell.answers.items()}}
    plain: dict[str, object] = {"action": cell.action}
    if cell.to is not None:
        plain["to"] = cell.to
    if cell.assumed:
        plain["assumed"] = True
    if cell.held:
        plain["held"] = True
    return plain


def lua_literal(value: object) -> str:
    """A Lua expression for nested mappings of plain strings, integers and booleans."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f'["{key}"]={lua_literal(inner)}' for key, inner in value.items()) + "}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    text = str(value)
    if not text.replace("_", "").isalnum():
        raise ValueError(f"not a plain word: {text!r}")
    return f'"{text}"'


# -- the same table as a diagram ---------------------------------------------------------------------------------

BEGIN, END = "<!-- states:begin -->", "<!-- states:end -->"


def diagram() -> str:
    """A mermaid stateDiagram of every move; cells that leave the state as it is are left out."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> AI_HANDLING: first exchange"]
    for state, row in TABLE.items():
        for event, cell in row.items():
            answers = cell.answers if isinstance(cell, Choice) else {"": cell}
            for answer, transition in answers.items():
                lines += _arrow(state, event, cell, answer, transition)
    lines += [f"    {state} --> [*]" for state in TABLE if not is_open(state)]
    return "\n".join([*lines, "```"])


def _arrow(state: State, event: Event, cell: Cell, answer: str, transition: Transition) -> list[str]:
    if transition.to is None and transition.action not in {Action.RESTART, Action.FOLLOW, Action.NEW_SESSION}:
        return []
    label = event.replace("_", " ")
    if isinstance(cell, Choice):
        label += f", {cell.question.replace('_', ' ')} {answer}"
    if transition.action in {Action.REVISE, Action.RESTART, Action.NEW_SESSION, Action.FOLLOW}:
        effect = {
            Action.REVISE: "new revision",
            Action.RESTART: "timer restarts",
            Action.NEW_SESSION: "new session",
            Action.FOLLOW: "trailing",
        }[transition.action]
        label += f" / {effect}"
    return [f"    {state} --> {transition.to or state}: {label}"]


def main(argv: list[str]) -> int:
    """Redraw the diagram between the markers of the file named; exit code 2 on wrong usage."""
    if len(argv) != 2:
        sys.stderr.write("usage: python -m sidecar.sessions.states docs/architecture.md\n")
        return 2
    path = Path(argv[1])
    text = path.read_text(encoding="utf-8")
    path.write_text(with_diagram(text), encoding="utf-8")
    return 0


def with_diagram(text: str) -> str:
    """`text` with the block between the markers replaced; raises ValueError when a marker is missing."""
    before, found, rest = text.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not found or not found_end:
        raise ValueError(f"the page needs the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{diagram()}\n{END}{after}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv))

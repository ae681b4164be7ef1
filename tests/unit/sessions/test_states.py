"""The state table against the words of its users' documentation, and the docs against the table."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.terms import Terms
from sidecar.sessions import states
from sidecar.sessions.states import Action, Event, IllegalMoveError, State, View, advance

HOUR = 3_600_000
FINAL = [state for state in State if not states.is_open(state)]


def view(state, *, last=0, finalized=0, deadline=0, **terms):
    return View(state, deadline, last, Terms("p", "d", **terms), finalized)


# One row per line of the table that users read: state, event, terms, state after, action.
ROWS = [
    ("AI_HANDLING", "activity", {}, "AI_HANDLING", "restart"),
    ("AI_HANDLING", "resolve", {}, "RESOLVED_PENDING", "move"),
    ("AI_HANDLING", "escalate", {}, "ESCALATED_TO_HUMAN", "move"),
    ("AI_HANDLING", "unresolve", {}, "AI_HANDLING", "nothing"),
    ("AI_HANDLING", "idle_timeout", {"inconclusive_policy": "NO_CHARGE"}, "INCONCLUSIVE", "finalize"),
    ("AI_HANDLING", "idle_timeout", {"inconclusive_policy": "CHARGE"}, "RESOLVED", "finalize"),
    ("AI_HANDLING", "idle_timeout", {"inconclusive_policy": "HOLD"}, "RESOLVED", "finalize"),
    ("RESOLVED_PENDING", "activity", {}, "RESOLVED_PENDING", "restart"),
    ("RESOLVED_PENDING", "resolve", {}, "RESOLVED_PENDING", "nothing"),
    ("RESOLVED_PENDING", "escalate", {}, "ESCALATED_TO_HUMAN", "move"),
    ("RESOLVED_PENDING", "unresolve", {}, "AI_HANDLING", "move"),
    ("RESOLVED_PENDING", "settle_timeout", {}, "RESOLVED", "finalize"),
    ("ESCALATED_TO_HUMAN", "settle_timeout", {}, "NOT_BILLABLE", "finalize"),
    ("RESOLVED", "activity", {}, "RESOLVED", "trail"),
    ("RESOLVED", "resolve", {}, "RESOLVED", "nothing"),
    ("RESOLVED", "escalate", {}, "NOT_BILLABLE", "revise"),
    ("RESOLVED", "unresolve", {}, "REVERSED", "revise"),
    ("RESOLVED", "return", {}, "RESOLVED", "new_session"),
    ("RESOLVED", "return", {"on_return": "REVERSE"}, "REVERSED", "new_session"),
    ("INCONCLUSIVE", "activity", {}, "INCONCLUSIVE", "trail"),
    ("INCONCLUSIVE", "resolve", {}, "RESOLVED", "revise"),
    ("INCONCLUSIVE", "escalate", {}, "NOT_BILLABLE", "revise"),
    ("INCONCLUSIVE", "unresolve", {}, "INCONCLUSIVE", "nothing"),
    ("INCONCLUSIVE", "return", {"on_return": "REVERSE"}, "INCONCLUSIVE", "new_session"),
    ("NOT_BILLABLE", "activity", {}, "NOT_BILLABLE", "follow"),
    ("NOT_BILLABLE", "resolve", {}, "NOT_BILLABLE", "nothing"),
    ("NOT_BILLABLE", "escalate", {}, "NOT_BILLABLE", "nothing"),
    ("NOT_BILLABLE", "unresolve", {}, "NOT_BILLABLE", "nothing"),
    ("NOT_BILLABLE", "return", {}, "NOT_BILLABLE", "follow"),
    ("REVERSED", "activity", {}, "REVERSED", "trail"),
    ("REVERSED", "resolve", {}, "REVERSED", "nothing"),
    ("REVERSED", "escalate", {}, "NOT_BILLABLE", "revise"),
    ("REVERSED", "unresolve", {}, "REVERSED", "nothing"),
    ("REVERSED", "return", {}, "REVERSED", "new_session"),
]


@pytest.mark.parametrize(("state", "event", "terms", "after", "action"), ROWS)
def test_every_move(state, event, terms, after, action):
    decision = advance(view(State(state), **terms), Event(event), 10)
    assert (decision.state, decision.action) == (State(after), Action(action))


def test_a_move_that_is_not_in_the_table_is_an_error():
    listed = {(State(state), Event(event)) for state, event, *_ in ROWS}
    illegal = 0
    for state in State:
        for event in Event:
            if (state, event) not in listed and not (
                state == State.ESCALATED_TO_HUMAN and event in states.TABLE[state]
            ):
                illegal += 1
                with pytest.raises(IllegalMoveError, match=event):
                    advance(view(state), event, 0)
    assert illegal == 7 * 7 - len({(state, event) for state, event, *_ in ROWS}) - 4


def test_silence_by_policy_is_assumed_and_perhaps_held():
    charge = advance(view(State.AI_HANDLING, inconclusive_policy="CHARGE"), Event.IDLE_TIMEOUT, 0)
    hold = advance(view(State.AI_HANDLING, inconclusive_policy="HOLD"), Event.IDLE_TIMEOUT, 0)
    none = advance(view(State.AI_HANDLING), Event.IDLE_TIMEOUT, 0)
    assert [(d.assumed, d.held) for d in (charge, hold, none)] == [(True, False), (True, True), (False, False)]


@pytest.mark.parametrize("state", [State.RESOLVED, State.INCONCLUSIVE, State.REVERSED])
def test_revisions_end_with_the_window(state):
    inside = advance(view(state, finalized=100, reversal_ms=50), Event.ESCALATE, 150)
    outside = advance(view(state, finalized=100, reversal_ms=50), Event.ESCALATE, 151)
    assert (inside.action, inside.state) == (Action.REVISE, State.NOT_BILLABLE)
    assert (outside.action, outside.state) == (Action.LATE, state)


def test_aftercare_is_measured_from_the_last_activity():
    care = view(State.NOT_BILLABLE, finalized=0, last=1000, reversal_ms=50)
    assert advance(care, Event.RETURN, 1050).action == Action.FOLLOW
    assert advance(care, Event.RETURN, 1051).action == Action.NEW_SESSION


def test_a_late_return_reverses_nothing():
    decision = advance(view(State.RESOLVED, on_return="REVERSE", reversal_ms=50), Event.RETURN, 51)
    assert (decision.action, decision.state) == (Action.NEW_SESSION, State.RESOLVED)


def test_timers():
    idle = view(State.AI_HANDLING, deadline=500, last=100, timeout_ms=400, settle_ms=50)
    assert advance(idle, Event.ACTIVITY, 300).deadline_ms == 700
    assert advance(idle, Event.ACTIVITY, 50).deadline_ms == 500
    assert advance(idle, Event.RESOLVE, 300).deadline_ms == 350
    assert advance(idle, Event.RESOLVE, 50).deadline_ms == 150
    assert advance(idle, Event.ESCALATE, 300).deadline_ms == 300
    pending = view(State.RESOLVED_PENDING, deadline=350, last=100, timeout_ms=400, settle_ms=50)
    assert advance(pending, Event.UNRESOLVE, 320).deadline_ms == 720
    assert advance(pending, Event.RESOLVE, 320).deadline_ms == 350


@given(
    st.permutations(["resolve", "escalate", "resolve", "escalate", "resolve"]),
    st.sampled_from([0, HOUR]),
    st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_escalation_wins_in_any_order(order, settle_ms, fires):
    """Resolve and escalate, repeated, in any order, with the timers firing between them or not."""
    state, finalized = State.AI_HANDLING, 0
    for at, (name, fire) in enumerate(zip(order, fires, strict=True), start=1):
        now = view(state, settle_ms=settle_ms, finalized=finalized)
        state = advance(now, Event(name), at).state
        due = state == State.ESCALATED_TO_HUMAN or (state == State.RESOLVED_PENDING and (fire or settle_ms == 0))
        if due:
            finalized = finalized or at
            state = advance(view(state, settle_ms=settle_ms), Event.SETTLE_TIMEOUT, at).state
    assert state == State.NOT_BILLABLE


@given(st.lists(st.sampled_from(list(Event)), max_size=20), st.sampled_from(["NEW_SESSION", "REVERSE"]))
def test_final_states_never_open_again(events, on_return):
    for start in FINAL:
        state = start
        for event in events:
            if event in states.TABLE[state]:
                state = advance(view(state, on_return=on_return), event, 1).state
            assert state in FINAL


def test_the_documentation_shows_the_table_as_it_is():
    page = Path(__file__).parents[3] / "docs" / "architecture.md"
    text = page.read_text(encoding="utf-8")
    assert states.with_diagram(text) == text, "run: make docs"
    assert states.diagram() in text


def test_the_diagram_is_drawn_into_a_file(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{states.BEGIN}\nold\n{states.END}\nafter\n")
    assert states.main(["states", str(page)]) == 0
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "RESOLVED --> NOT_BILLABLE" in text
    assert states.main(["states"]) == 2
    assert "usage" in capsys.readouterr().err
    with pytest.raises(ValueError, match="markers"):
        states.with_diagram("no markers")


def test_lua_literals_hold_plain_words_alone():
    assert states.lua_literal({"a": {"b": True}, "n": 3}) == '{["a"]={["b"]=true},["n"]=3}'
    with pytest.raises(ValueError, match="plain word"):
        states.lua_literal('x"]=1')

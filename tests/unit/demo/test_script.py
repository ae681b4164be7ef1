"""The script against the table of session states: what it calls right follows from the plan, not from a guess, nor
from how long a step takes.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.demo.script import (
    CUSTOMERS,
    SCENARIOS,
    Await,
    LastAct,
    Say,
    Tell,
    begun_in_first_act,
    calls_expected,
    cast,
    events_expected,
    first_act_plan,
    sessions,
)
from sidecar.policy.loading import load_plan
from sidecar.sessions.states import TIMERS, Action, Event, State, View, advance, is_open

PLAN = Path(__file__).resolve().parents[3] / "examples" / "plans" / "demo.yaml"
LAST_ACT = load_plan(PLAN.read_bytes(), "demo.yaml").terms
FIRST_ACT = load_plan(yaml.safe_dump(first_act_plan(yaml.safe_load(PLAN.read_bytes()))).encode(), "first.yaml").terms
MINUTES_MS = 20 * 60_000  # what a step may take on a machine that hardly moves
TOOLS = {"solved": Event.RESOLVE, "all set": Event.RESOLVE, "human": Event.ESCALATE}


class Conversation:
    """One conversation under the table of states, with a clock of its own."""

    def __init__(self):
        self.now_ms = 1_000_000
        self.terms = FIRST_ACT
        self.posted = []  # states by session
        self.turns = []
        self.view = None

    def apply(self, event):
        if self.view is None:
            self.open()
        decision = advance(self.view, event, self.now_ms)
        if decision.action is Action.NEW_SESSION:
            self.open()
            return
        self.view = replace(self.view, state=decision.state, deadline_ms=decision.deadline_ms)
        if event is Event.ACTIVITY:
            self.view = replace(self.view, last_ms=self.now_ms)
        if decision.action in {Action.FINALIZE, Action.REVISE}:
            self.posted[-1].append(str(decision.state))
            if decision.action is Action.FINALIZE:
                self.view = replace(self.view, finalized_ms=self.now_ms)
        if self.view.state is State.ESCALATED_TO_HUMAN:
            self.apply(Event.SETTLE_TIMEOUT)

    def open(self):
        self.view = View(State.AI_HANDLING, self.now_ms + self.terms.timeout_ms, self.now_ms, self.terms)
        self.posted.append([])
        self.turns.append(0)

    def wait(self, ms):
        """Time goes by, and what is due meanwhile fires, as it would before the next fact is applied."""
        until_ms = self.now_ms + ms
        if self.view is not None and is_open(self.view.state) and self.view.deadline_ms <= until_ms:
            self.silence()
        self.now_ms = until_ms

    def say(self, text):
        if self.view is not None and not is_open(self.view.state):
            self.apply(Event.RETURN)
        elif self.view is None:
            self.open()
        self.apply(Event.ACTIVITY)
        self.turns[-1] += 1
        for word, event in TOOLS.items():
            if word in text:
                self.apply(event)

    def tell(self, tell):
        events = {"RESOLVED": Event.RESOLVE, "UNRESOLVED": Event.UNRESOLVE, None: Event.ESCALATE}
        self.apply(events[tell.outcome])  # once: further copies have no effect

    def silence(self):
        if is_open(self.view.state):
            self.now_ms = self.view.deadline_ms
            self.apply(TIMERS[self.view.state][0])


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_what_the_script_calls_right_follows_from_the_table_however_long_each_step_takes(scenario, data):
    conversation = Conversation()
    for step in scenario.steps:
        pressing = isinstance(step, Say) and step.pressing
        conversation.wait(data.draw(st.integers(1, LAST_ACT.settle_ms - 1 if pressing else MINUTES_MS)))
        match step:
            case LastAct():
                conversation.terms = LAST_ACT
            case Say():
                conversation.say(step.text)
            case Tell():
                conversation.tell(step)
            case Await():
                conversation.silence()
    conversation.silence()
    assert [tuple(states) for states in conversation.posted] == [session.states for session in scenario.sessions]
    assert conversation.turns == [session.turns for session in scenario.sessions]


def test_the_thank_you_within_the_settling_time_is_no_session_of_its_own_and_a_late_one_is():
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    assert len(by_name["resolved, thanked"].sessions) == 1
    assert [session.states for session in by_name["thanked late"].sessions] == [("RESOLVED",), ("INCONCLUSIVE",)]


def test_forty_eight_conversations_show_every_scenario_over_both_apis_streaming_and_not():
    seen = {(part.scenario.name, part.provider, part.stream) for part in cast(48)}
    assert len(seen) == len(SCENARIOS) * 4


def test_conversation_ids_are_distinct_and_every_customer_has_every_scenario():
    parts = cast(64)
    assert len({part.conversation for part in parts}) == 64
    assert {part.customer for part in parts} == set(CUSTOMERS)
    assert {(part.customer, part.scenario.name) for part in cast(60)} == {
        (customer, scenario.name) for customer in CUSTOMERS for scenario in SCENARIOS
    }


def test_the_last_act_begins_no_session_that_waits_for_more_than_one_model_call():
    begun = begun_in_first_act(cast(len(SCENARIOS)))
    for part in cast(len(SCENARIOS)):
        for expected in part.scenario.sessions[begun.get(part.conversation, 0) :]:
            assert (expected.llm_calls, expected.states[0]) == (1, "INCONCLUSIVE")
    assert sum(begun.values()) == 11  # by hand: of fourteen, abandoned, resolved late, and the late thank-you are not


def test_totals_are_the_sums_over_sessions():
    parts = cast(12)
    assert len(list(sessions(parts))) == 14  # two scenarios have two sessions
    assert events_expected(parts) == 17  # and three have a second revision
    assert calls_expected(parts) == 3 + 1 + 1 + 3 + 4 + 3 + 5 + 1 + (3 + 2) + 1 + 3 + (4 + 1)


def test_user_messages_of_a_conversation_are_distinct_so_that_each_is_a_turn():
    for scenario in SCENARIOS:
        said = [step.text for step in scenario.steps if isinstance(step, Say)]
        assert len(set(said)) == len(said)

"""Signals in every order, repeated, from two replicas, with the clock jumping: where the pure machine ends.

Exhaustive where it can be: all orders of all subsets of six signals, with and without settling time.
"""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy.terms import Terms
from sidecar.sessions import states
from sidecar.sessions.states import Action, Event, State, View, advance

MINUTE, HOUR = 60_000, 3_600_000
SIX = [
    ("r1", "resolve"),
    ("r2", "resolve"),
    ("r3", "resolve"),
    ("e1", "escalate"),
    ("e2", "escalate"),
    ("u1", "unresolve"),
]
TERMS = [
    Terms("p", "d", timeout_ms=HOUR, settle_ms=settle, inconclusive_policy=policy)
    for settle in (0, 10 * MINUTE)
    for policy in ("NO_CHARGE", "CHARGE")
]


class Life:
    """One session carried through events as the scripts carry it: due timers fire first, settled at once where so."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.state, self.last, self.finalized = State.AI_HANDLING, 0, 0
        self.deadline = terms.timeout_ms
        self.seen: set[str] = set()
        self.posted: list[State] = []

    def signal(self, name: str, event: str, at: int) -> None:
        if name in self.seen:
            return
        self.seen.add(name)
        self.pass_time(at)
        self._do(Event(event), at)

    def pass_time(self, at: int) -> None:
        while states.is_open(self.state) and self.deadline <= at:
            self._do(states.TIMERS[self.state][0], self.deadline)

    def _do(self, event: Event, at: int) -> None:
        view = View(self.state, self.deadline, self.last, self.terms, self.finalized)
        decision = advance(view, event, at)
        if decision.action == Action.FINALIZE:
            self.finalized = at
        if decision.action in {Action.FINALIZE, Action.REVISE}:
            self.posted.append(decision.state)
        self.state, self.deadline = decision.state, decision.deadline_ms
        if (
            states.is_open(self.state)
            and self.state != State.AI_HANDLING
            and not states.timer_ms(self.state, self.terms)
        ):
            self._do(Event.SETTLE_TIMEOUT, self.deadline)


def end(terms, sequence, step=1000):
    life = Life(terms)
    for number, (name, event) in enumerate(sequence, 1):
        life.signal(name, event, number * step)
    life.pass_time(100 * HOUR)
    return life


def test_all_orders_of_six_signals_end_where_they_must():
    """1,957 orders, four plans, signals within a second of each other or with timers running out between them."""
    checked = 0
    for length in range(len(SIX) + 1):
        for order in itertools.permutations(SIX, length):
            events = [event for _, event in order]
            for terms, step in itertools.product(TERMS, (1000, 40 * MINUTE)):
                life = end(terms, order, step)
                if "escalate" in events:
                    assert life.state == State.NOT_BILLABLE, (order, terms)
                elif "resolve" in events and "unresolve" not in events:
                    assert life.state == State.RESOLVED, (order, terms)
                else:
                    assert life.state in {State.RESOLVED, State.REVERSED, State.INCONCLUSIVE}
                assert life.posted[-1] == life.state
                assert life.posted.count(State.NOT_BILLABLE) <= 1
                checked += 1
    assert checked == 1957 * 4 * 2


REPLICA = st.lists(st.sampled_from(SIX), max_size=6)


@st.composite
def deliveries(draw):
    """Two replicas, each with an order and repetitions of its own, interleaved anyhow."""
    queues = [list(draw(REPLICA)), list(draw(REPLICA))]
    out = []
    while queues[0] or queues[1]:
        which = draw(st.integers(0, 1))
        out.append(queues[which if queues[which] else 1 - which].pop(0))
    return out


@settings(max_examples=300, deadline=None)
@given(deliveries(), st.sampled_from(TERMS), st.randoms(use_true_random=False))
def test_copies_from_two_replicas_count_once(sequence, terms, rng):
    """Whatever repeats, wherever: the same as each signal once, in the order of first arrival."""
    firsts = list(dict.fromkeys(sequence))
    repeated = [*sequence, *rng.sample(sequence, len(sequence))]
    assert end(terms, repeated).state == end(terms, firsts).state
    assert end(terms, repeated).posted == end(terms, firsts).posted


@settings(max_examples=300, deadline=None)
@given(
    st.permutations(["resolve", "escalate", "resolve", "escalate"]),
    st.lists(st.integers(-HOUR, HOUR), min_size=4, max_size=4),
    st.sampled_from(TERMS),
)
def test_a_clock_that_jumps_by_an_hour_changes_no_end(order, jumps, terms):
    life = Life(terms)
    at = 2 * HOUR
    for number, (event, jump) in enumerate(zip(order, jumps, strict=True)):
        at = max(at + jump, 0)
        life.signal(f"s{number}", event, at)
    life.pass_time(200 * HOUR)
    assert life.state == State.NOT_BILLABLE
    assert life.posted.count(State.NOT_BILLABLE) == 1


@given(st.lists(st.integers(-HOUR, HOUR), max_size=30), st.sampled_from(TERMS))
def test_no_jump_of_the_clock_moves_a_timer_backwards(jumps, terms):
    deadline, at = terms.timeout_ms, 0
    for jump in jumps:
        at += jump
        decision = advance(View(State.AI_HANDLING, deadline, 0, terms), Event.ACTIVITY, at)
        assert decision.deadline_ms >= deadline
        assert decision.deadline_ms >= at + terms.timeout_ms
        deadline = decision.deadline_ms

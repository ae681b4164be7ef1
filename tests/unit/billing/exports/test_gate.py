"""Whether an entry may be sent, and where it stands after an answer."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sidecar.billing.exports.gate import CAUSES, MOVES, Park, Wait, act_of, after, gate
from sidecar.billing.exports.sender import retry_after_us
from sidecar.billing.exports.target import DAY_US, HOUR_US, Answer, Traits, Verdict
from sidecar.billing.exports.targets import TARGETS

NOW = 1_795_341_600_000_000


def row(**changes: Any) -> dict[str, Any]:
    return {
        "at_us": NOW, "unsure_us": None, "act": None, "quantity": "1", "attempts": 1, "sent_us": None, "id": "exp_1"
    } | changes  # fmt: skip


@given(
    kind=st.sampled_from(sorted(TARGETS)),
    unsure=st.none() | st.integers(0, 50 * DAY_US),
    age=st.integers(-3 * DAY_US, 50 * DAY_US),
    act=st.sampled_from(["usage", "credit", "cancel"]),
)
def test_nothing_is_sent_that_the_target_may_have_forgotten_or_would_refuse(
    kind: str, unsure: int | None, age: int, act: str
) -> None:
    traits = TARGETS[kind].traits
    stop = gate(row(unsure_us=None if unsure is None else NOW - unsure, at_us=NOW - age, act=act), traits, NOW)
    if unsure is not None and traits.memory_us is not None and unsure >= traits.memory_us:
        assert isinstance(stop, Park)
        assert stop.cause == "ambiguous"
    if stop is None:
        assert traits.past_us is None or age <= traits.past_us
        assert traits.future_us is None or -age <= traits.future_us
    if isinstance(stop, Wait):
        assert NOW < stop.until_us <= NOW + HOUR_US
    if isinstance(stop, Park):
        assert stop.cause in CAUSES


@given(
    result=st.sampled_from(sorted(MOVES)),
    unstored=st.booleans(),
    before=st.none() | st.just(NOW - 5),
    attempts=st.integers(1, 60),
    wait=st.none() | st.integers(0, HOUR_US),
)
def test_doubt_is_forgotten_only_when_the_target_certainly_has_nothing(
    result: Any, unstored: bool, before: int | None, attempts: int, wait: int | None
) -> None:
    values = after(row(attempts=attempts), before, Verdict(result, "why", unstored), NOW, wait)
    assert values["state"] == MOVES[result]
    assert values["claim"] is None
    if values["state"] == "waiting":
        assert values["next_us"] >= NOW
        assert ("unsure_us" in values) == unstored
        assert values.get("unsure_us") in {None, before}
        assert values["next_us"] <= NOW + max(300_000_000, wait or 0)
    if values["state"] == "parked":
        assert values["cause"] == ("refused" if before is None else "ambiguous")


def test_only_a_whole_and_young_entry_is_cancelled() -> None:
    traits = Traits(cancel_us=DAY_US)
    first = {"id": "exp_0", "quantity": "2", "sent_us": NOW - HOUR_US}
    assert act_of(row(quantity="-2"), [first], traits, NOW) == ("cancel", "exp_0")
    assert act_of(row(quantity="-1"), [first], traits, NOW) == ("credit", None)
    assert act_of(row(quantity="-2"), [{**first, "sent_us": NOW - DAY_US}], traits, NOW) == ("credit", None)
    assert act_of(row(quantity="-2"), [first, first], traits, NOW) == ("credit", None)
    assert act_of(row(quantity="-2"), [first], Traits(), NOW) == ("credit", None)
    assert act_of(row(), [], traits, NOW) == ("usage", None)


def test_retry_after_is_seconds_or_a_date_and_bounded() -> None:
    def read(text: str) -> int | None:
        return retry_after_us(Answer(429, {"retry-after": text}, b""), NOW)

    assert read("7") == 7_000_000
    assert read("Sun, 22 Nov 2026 10:00:30 GMT") == 30_000_000
    assert read("Sun, 22 Nov 2026 09:00:00 GMT") == 0
    assert read("999999") == HOUR_US
    assert [read(text) for text in ("", "soon", "-1", "9" * 30)] == [None] * 4

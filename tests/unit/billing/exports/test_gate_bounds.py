"""To the microsecond: when an entry may still be sent, what as, and what an answer leaves behind."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.billing.exports.gate import WAIT_FOR_US, Park, Wait, act_of, after, gate
from sidecar.billing.exports.target import DAY_US, HOUR_US, MINUTE_US, Traits, Verdict

NOW = 1_795_341_600_000_000
UNDER_WAY_US = 2 * MINUTE_US  # a request may take as long, and must still arrive in time


def row(**changes: Any) -> dict[str, Any]:
    return {
        "at_us": NOW, "unsure_us": None, "act": None, "quantity": "1", "attempts": 1, "keys_spent": 0, "sent_us": None
    } | changes  # fmt: skip


def cause(stop: Park | Wait | None) -> str | None:
    assert not isinstance(stop, Wait)
    return stop.cause if stop else None


@pytest.mark.parametrize(("act", "memory_us"), [("usage", 3 * DAY_US), ("credit", 3 * DAY_US), ("cancel", DAY_US)])
def test_what_is_in_doubt_is_repeated_while_a_request_still_arrives_in_time(act: str, memory_us: int) -> None:
    """An event while its id is remembered; a cancellation while it is allowed, if that is shorter."""
    traits = Traits(memory_us=3 * DAY_US, cancel_us=DAY_US)
    last = NOW - memory_us + UNDER_WAY_US
    assert cause(gate(row(act=act, unsure_us=last + 1), traits, NOW)) is None
    assert cause(gate(row(act=act, unsure_us=last), traits, NOW)) == "ambiguous"
    assert cause(gate(row(act=act), traits, NOW)) is None, "nothing was ever sent"
    forever = Traits(cancel_us=5 * DAY_US)
    assert cause(gate(row(act=act, unsure_us=NOW - 4 * DAY_US), forever, NOW)) is None


@pytest.mark.parametrize(("unsure_us", "told"), [(None, "too_old"), (NOW - 1, "ambiguous")])
def test_a_time_may_lie_as_far_back_as_the_target_takes_when_it_arrives(unsure_us: int | None, told: str) -> None:
    """Too old is a certainty only for what the target cannot have."""
    traits = Traits(past_us=DAY_US)
    oldest = NOW - DAY_US + UNDER_WAY_US
    assert cause(gate(row(at_us=oldest, unsure_us=unsure_us), traits, NOW)) is None
    assert cause(gate(row(at_us=oldest - 1, unsure_us=unsure_us), traits, NOW)) == told


def test_a_time_ahead_is_waited_for_until_the_target_takes_it() -> None:
    traits = Traits(future_us=5 * MINUTE_US)
    ahead = NOW + 5 * MINUTE_US
    assert gate(row(at_us=ahead), traits, NOW) is None
    assert gate(row(at_us=ahead + 1), traits, NOW) == Wait(NOW + 1)
    assert gate(row(at_us=ahead + WAIT_FOR_US), traits, NOW) == Wait(NOW + WAIT_FOR_US)
    assert cause(gate(row(at_us=ahead + WAIT_FOR_US + 1), traits, NOW)) == "in_the_future"


def test_what_was_sent_is_cancelled_while_a_request_still_arrives_in_time() -> None:
    def act(sent_us: int | None) -> str:
        first = {"id": "exp_0", "quantity": "1", "sent_us": sent_us}
        return act_of(row(quantity="-1"), [first], Traits(cancel_us=DAY_US), NOW)[0]

    last = NOW - DAY_US + UNDER_WAY_US
    assert act(last + 1) == "cancel"
    assert act(last) == "credit"
    assert act(None) == "credit", "there is nothing that could be cancelled"


@pytest.mark.parametrize("before", [None, NOW - 5])
def test_what_certainly_was_not_stored_leaves_the_doubt_of_before(before: int | None) -> None:
    for result in ("retry", "again", "alone", "refused"):
        assert after(row(), before, Verdict(result, unstored=True), NOW, None)["unsure_us"] == before
        assert "unsure_us" not in after(row(), before, Verdict(result), NOW, None)


def test_only_what_a_batch_was_refused_with_goes_alone_and_at_once() -> None:
    for result in ("again", "alone"):
        values = after(row(attempts=9), None, Verdict(result), NOW, HOUR_US)
        assert values["next_us"] == NOW
        assert values.get("alone", False) == (result == "alone")
    assert "alone" not in after(row(), None, Verdict("retry"), NOW, None)


def test_the_next_attempt_comes_later_each_time_and_as_the_target_asks() -> None:
    def wait_us(attempts: int, retry_after_us: int | None = None) -> int:
        return after(row(attempts=attempts), None, Verdict("retry"), NOW, retry_after_us)["next_us"] - NOW

    for _ in range(20):
        for attempts, least in ((1, 1_000_000), (2, 2_000_000), (5, 16_000_000), (9, 150_000_000), (60, 150_000_000)):
            assert least <= wait_us(attempts) <= 2 * least
    assert wait_us(1, HOUR_US) == HOUR_US
    assert wait_us(9, 1) >= 150_000_000


def test_a_key_is_spent_once_for_each_answer_that_was_saved() -> None:
    assert after(row(keys_spent=2), None, Verdict("retry", key_spent=True), NOW, None)["keys_spent"] == 3
    assert "keys_spent" not in after(row(keys_spent=2), None, Verdict("retry"), NOW, None)

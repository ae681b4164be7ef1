"""UNIQUE_WITHIN_WINDOW against a search over all rows: a row counts if no earlier one has its value in its window."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.billing.rating.account import Account, Customer, Row
from sidecar.billing.rating.invoice import invoice
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.sections import always
from sidecar.billing.rating.usage import RatedPlan
from sidecar.policy.loading import load_plan

MONTHS = [Period(2026, 10), Period(2026, 11), Period(2026, 12)]
PLAN = """
rate_plan:
  name: p
  metrics:
    - id: m
      aggregation: COUNT
      filter_conditions:
        - {{field: attributes.kind, operator: UNIQUE_WITHIN_WINDOW, window: {window}}}
        - {{field: outcome, operator: EQUALS, value: RESOLVED}}
  pricing: {{model: PER_UNIT, rate: 1}}
"""


def window_of(name: str, row: Row) -> object:
    if name == "SESSION":
        return row.session_id
    if name == "CONVERSATION":
        return row.conversation or f"only {row.session_id}"
    return Period.of(row.at_us)


rows_of = st.lists(
    st.tuples(
        st.integers(0, 5),  # session
        st.sampled_from([None, "x", "y"]),  # conversation
        st.integers(0, 91),  # day
        st.sampled_from([None, "a", "b", 1, True]),  # the field's value
        st.booleans(),  # resolved
    ),
    max_size=20,
)


@settings(max_examples=150, deadline=None)
@given(told=rows_of, window=st.sampled_from(["SESSION", "CONVERSATION", "BILLING_PERIOD"]), seed=st.integers(0, 99))
def test_the_earliest_by_time_then_id_counts(told, window, seed) -> None:
    rows = [
        Row(
            id=f"out_{n:03d}", customer="c", session_id=f"s{session}", revision=0, conversation=conversation,
            at_us=MONTHS[0].start_us + day * 86_400_000_000,
            data={
                "outcome": "RESOLVED" if good else "QUALIFIED",
                "attributes": {} if kind is None else {"kind": kind},
            },
        )
        for n, (session, conversation, day, kind, good) in enumerate(told)
    ]  # fmt: skip
    plan = RatedPlan(load_plan(PLAN.format(window=window).encode(), "p").plan)
    candidates = [row for row in rows if row.data["outcome"] == "RESOLVED" and row.data["attributes"]]

    def first(row: Row) -> bool:
        kind = row.data["attributes"]["kind"]
        rivals = [
            other
            for other in candidates
            if (type(other.data["attributes"]["kind"]), other.data["attributes"]["kind"]) == (type(kind), kind)
            and window_of(window, other) == window_of(window, row)
        ]
        return all((row.at_us, row.id) <= (other.at_us, other.id) for other in rivals)

    random.Random(seed).shuffle(rows)
    for period in MONTHS:
        expected = sum(1 for row in candidates if Period.of(row.at_us) == period and first(row))
        result = invoice(Account(Customer("c"), tuple(rows)), always(plan, Customer("c")), period)
        assert result["lines"][0]["quantity"] == expected

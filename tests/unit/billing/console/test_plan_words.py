"""Plans in sentences: every model, operator and policy has words, and none of them is a word of the grammar."""

from __future__ import annotations

from typing import get_args

import pytest

from sidecar.billing.console.plan_words import _OPERATORS, ChargeText, charge_text, described
from sidecar.policy.conditions import Operator
from sidecar.policy.loading import builtin_plan, load_plan
from sidecar.policy.plan import Charge


def charge(**fields: object) -> ChargeText:
    return charge_text(Charge.model_validate({"id": "c", "metrics": ["m"], **fields}), "USD")


@pytest.mark.parametrize(
    ("fields", "price"),
    [
        ({"model": "PER_UNIT", "rate": 1}, "$1.00 for each unit"),
        ({"model": "FLAT", "rate": 49}, "$49.00 a month"),
        ({"model": "PACKAGE", "rate": 20, "package_size": 500}, "$20.00 for each started package of 500 units"),
        ({"model": "GRADUATED", "tiers": [{"rate": 1}]}, "Each unit at the rate of its tier"),
        ({"model": "VOLUME", "tiers": [{"rate": 1}]}, "All units at the rate of the tier that their number reaches"),
    ],
)
def test_each_model_has_a_sentence(fields: dict[str, object], price: str) -> None:
    assert charge(**fields).price == price


def test_tiers_follow_each_other_and_the_last_is_open() -> None:
    tiers = [{"up_to": 10, "rate": 2}, {"up_to": 25, "rate": 1, "flat": 5}, {"rate": 0}]
    lines = charge(model="GRADUATED", tiers=tiers, included_free=1).tiers
    assert [(line.units, line.rate, line.flat) for line in lines] == [
        ("1 to 10", "$2.00", ""), ("11 to 25", "$1.00", "$5.00"), ("over 25", "$0.00", ""),
    ]  # fmt: skip
    assert charge(model="GRADUATED", tiers=[{"rate": 1}]).tiers[0].units == "all"


def test_free_units_and_what_comes_after_them() -> None:
    found = charge(model="PER_UNIT", rate=1, included_free=100, overage_behavior="NO_CHARGE")
    assert found.notes == ["The first 100 units of a month are free.", "Beyond the free units nothing is charged."]


def test_every_operator_has_words() -> None:
    assert set(_OPERATORS) == set(get_args(Operator))


def test_the_built_in_plan_reads_like_a_contract() -> None:
    text = described(builtin_plan().plan)
    [one] = text["charges"]
    assert (one.price, one.notes) == ("$0.99 for each unit", ["The first 100 units of a month are free."])
    assert text["session"][0] == "A session ends after 60 minutes of silence; silence is not charged."


def test_bounds_and_rules_have_sentences() -> None:
    text = described(
        load_plan(
            b"""
rate_plan:
  name: p
  guardrails: {max_spend_cap: 20000, max_spend_behavior: CAP, min_spend: 99}
  session_config:
    {timeout_minutes: 1.5, settle_minutes: 1, on_return: REVERSE, inconclusive_policy: HOLD, incomplete_policy: CHARGE}
  signals:
    - id: bad
      on: webhook
      conditions: [{field: source, operator: EXISTS}]
      alias: {kind: conversation, value: payload.id}
      set: {outcome: UNRESOLVED, reason: "low rating"}
""",
            "p",
        ).plan
    )
    assert text["guardrails"] == [
        "Charges stop at $20\N{NARROW NO-BREAK SPACE}000.00 a month.",
        "At least $99.00 a month is charged.",
    ]
    assert text["session"] == [
        "A session ends after 1.5 minutes of silence; silence waits for an operator.",
        "A resolution is final after 1 minute, in which it can be taken back.",
        "It can be taken back for 72 hours.",
        "A customer who comes back begins a new session, and takes the resolution before it back.",
        "A session of which a copy was lost is charged.",
    ]
    [rule] = text["signals"]
    assert (rule.saying, rule.conditions) == (
        "On a webhook: the resolution is taken back, reason “low rating”",
        ["source is there"],
    )

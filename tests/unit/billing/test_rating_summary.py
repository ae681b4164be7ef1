"""The summary of a month: every event in one class, and what is charged, taken back and escalated now."""

from __future__ import annotations

from bills import DECEMBER, NOVEMBER, RESOLUTION, bill, rated, row

from sidecar.billing.rating.account import Account, Customer
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.sections import always
from sidecar.billing.rating.summary import summary
from sidecar.billing.rating.usage import RatedPlan


def test_summary_puts_every_event_into_one_class() -> None:
    plan = rated(RESOLUTION + "pricing: {model: PER_UNIT, rate: 1, included_free: 1}")
    tokens = {"models": ["gpt-4o-2024-08-06"], "tokens": {"input": 1_000_000, "output": 100_000}}
    first = row(1, "2026-11-01", data=tokens)
    mine = [first, row(2), row(3, outcome="ESCALATED_TO_HUMAN"), row(4, outcome="QUALIFIED"), row(5, held=True)]
    mine.append(row(6, "2026-11-30", session="ses_2", revision=1, reverses=mine[1].id, outcome="UNRESOLVED"))
    mine.append(row(7, shadow=True))
    lost = [row(8, customer="unattributed"), row(9, customer="unattributed", outcome="INCONCLUSIVE")]
    accounts = [
        (Account(Customer(name), tuple(rows)), always(plan, Customer(name)))
        for name, rows in [("c", mine), ("unattributed", lost)]
    ]
    result = summary(accounts, NOVEMBER)
    shown = {name: result[name] for name in (
        "sessions", "charged", "free", "trial", "escalated", "inconclusive", "held", "not_billable", "unmatched",
        "reversed", "revised", "events", "revenue", "llm_cost", "currency",
    )}  # fmt: skip
    assert shown == {
        "sessions": 7, "charged": 1, "free": 1, "trial": 0, "escalated": 1, "inconclusive": 1, "held": 1,
        "not_billable": 0, "unmatched": 2, "reversed": 1, "revised": 0, "events": 8, "revenue": "0.00",
        "llm_cost": "3.50", "currency": "USD",
    }  # fmt: skip
    assert len(result["days"]) == 30
    assert sum(day["sessions"] for day in result["days"]) == 7
    assert (result["days"][0]["free"], result["days"][29]["reversed"]) == (1, 1)
    assert result["shadow"]["sessions"] == 1
    assert result["shadow"]["free"] == 1


def net(rows, plan: RatedPlan, period: Period = NOVEMBER) -> tuple:
    found = summary([(Account(Customer("c"), tuple(rows)), always(plan, Customer("c")))], period)
    names = ("charged", "charged_later", "taken_back", "charged_net", "charged_exact", "escalated", "escalated_later")
    return tuple(found[name] for name in names)


def test_first_events_lead_to_what_is_charged_and_escalated_now() -> None:
    plan = rated(RESOLUTION + "pricing: {model: PER_UNIT, rate: 1}")
    rows = [row(1), row(2), row(3), row(4, outcome="INCONCLUSIVE"), row(5, outcome="ESCALATED_TO_HUMAN")]
    assert net(rows, plan) == (3, 0, 0, 3, True, 1, 0)
    rows[1] = row(2, taken_back=NOVEMBER)
    assert net(rows, plan) == (3, 0, 1, 2, True, 1, 0), "by an operator"
    rows += [
        row(6, session="ses_1", revision=1, outcome="ESCALATED_TO_HUMAN"), row(7, session="ses_4", revision=1),
    ]  # fmt: skip
    assert net(rows, plan) == (3, 1, 2, 2, True, 1, 1)
    assert bill(rows, plan)["total"] == "2.00"
    rows += [row(8, "2026-12-01", session="ses_4", revision=2, outcome="UNRESOLVED"), row(9, was_held=True)]
    rows += [row(10, was_held=True, counts=DECEMBER), row(11, "2026-12-02", session="ses_5", revision=1)]
    assert net(rows, plan) == (4, 1, 2, 3, True, 1, 1), "what was released in its own month is charged at first"
    assert net(rows, plan, DECEMBER) == (0, 2, 1, 1, True, 0, -1)
    assert bill(rows, plan, DECEMBER)["total"] == "1.00"


def test_a_charge_that_another_class_hides_comes_later() -> None:
    plan = rated("metrics: [{id: m, aggregation: COUNT}]\npricing: {model: PER_UNIT, rate: 1}")
    assert net([row(1), row(2, outcome="INCONCLUSIVE")], plan) == (1, 1, 0, 2, True, 0, 0)


def test_what_is_taken_back_of_free_units_takes_back_no_charge() -> None:
    plan = rated(RESOLUTION + "pricing: {model: PER_UNIT, rate: 1, included_free: 2.5}")
    rows = [row(number) for number in range(4)]
    back = [row(9, session=f"ses_{number}", revision=1, outcome="UNRESOLVED") for number in range(3)]
    assert net(rows, plan) == (2, 0, 0, 2, True, 0, 0), "half a unit is not free"
    assert [net([*rows, *back[:number]], plan)[2:4] for number in range(4)] == [(0, 2), (1, 1), (2, 0), (2, 0)]


def test_free_units_that_are_no_sessions_are_shared_out() -> None:
    metric = "metrics: [{id: t, aggregation: SUM, event_field: n}]"
    plan = rated(metric + "\npricing: {model: PER_UNIT, rate: 1, included_free: 30}")
    rows = [row(number, data={"n": 10}) for number in range(4)]
    assert net(rows, plan) == (1, 0, 0, 1, False, 0, 0)

"""The comparison finds every wrong figure, and nothing in right ones."""

from dataclasses import replace
from decimal import Decimal

import pytest

from sidecar.demo import books
from sidecar.demo.books import OUTCOME_OF, Posted, Resolutions, Spoken, Tariff
from sidecar.demo.script import cast

PARTS = cast(24)
TARIFF = Tariff(Decimal("0.99"), 5, "USD")


def right_rows(parts=PARTS):
    """A ledger, newest first, and what the agents saw, both as they must be."""
    rows, spoken = [], {}
    for part in parts:
        spoken[part.conversation] = []
        for number, session in enumerate(part.scenario.sessions):
            tokens = {"input": 100 + number, "output": 10}
            spoken[part.conversation].append(Spoken(session.llm_calls, session.tool_calls, *tokens.values()))
            for revision, state in enumerate(session.states):
                prefix = f"out_{part.conversation}_{number}_"
                data = {
                    "session_id": f"ses_{part.conversation}_{number}",
                    "conversation": part.conversation,
                    "started_at": f"2026-11-22T10:0{number}:00Z",
                    "state": state,
                    "outcome": OUTCOME_OF.get(state, state),
                    "escalated_to_human": state == "NOT_BILLABLE",
                    "revision": revision,
                    "reverses": f"{prefix}{revision - 1}" if revision else None,
                    "turns": session.turns,
                    "llm_calls": session.llm_calls,
                    "tool_calls": session.tool_calls,
                    "tokens": tokens,
                    "complete": True,
                    "billable": True,
                    "shadow": False,
                    "held": False,
                }
                rows.insert(0, Posted(f"{prefix}{revision}", "2026-11-22T10:10:00Z", part.customer, data))
    return rows, spoken


def changed(row, **data):
    return replace(row, data={**row.data, **data})


def test_right_books_have_no_difference():
    rows, spoken = right_rows()
    assert books.session_differences(PARTS, spoken, rows) == []
    assert books.states(rows) == books.states_expected(PARTS)


def test_states_are_those_of_the_last_revision_whatever_the_order():
    rows, _ = right_rows()
    counted = books.states(list(reversed(rows)))
    # Of each twelve: by tool, signal, late signal, thanked, returned (two), signalled three times, thanked late.
    assert counted == {"RESOLVED": 16, "NOT_BILLABLE": 6, "INCONCLUSIVE": 4, "REVERSED": 2}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("turns", 9),
        ("llm_calls", 0),
        ("tool_calls", 9),
        ("tokens", {"input": 1, "output": 10}),
        ("complete", False),
        ("billable", False),
        ("outcome", "SOMETHING"),
        ("held", True),
        ("shadow", True),
        ("escalated_to_human", None),
        ("reverses", "out_other"),
    ],
)
def test_a_wrong_figure_is_named_with_its_conversation(field, value):
    rows, spoken = right_rows()
    rows[0] = changed(rows[0], **{field: value})
    [difference] = books.session_differences(PARTS, spoken, rows)
    assert field in difference
    assert rows[0].data["conversation"] in difference


def test_conversations_that_are_not_all_posted_are_missing_whatever_the_number_of_rows():
    rows, _ = right_rows()
    assert books.missing(PARTS, rows) == []
    late = PARTS[2]  # INCONCLUSIVE, then RESOLVED
    assert books.missing(PARTS, [row for row in rows if row.data["conversation"] != late.conversation]) == [late]
    [last] = [row for row in rows if row.data["conversation"] == late.conversation and row.revision == 1]
    extra = changed(next(row for row in rows if row.data["conversation"] == PARTS[0].conversation), revision=1)
    # As many rows as there must be, one of them too much and one not there.
    assert books.missing(PARTS, [extra, *(row for row in rows if row is not last)]) == [PARTS[0], late]


def test_a_wrong_state_is_named():
    rows, spoken = right_rows(cast(1))
    rows[0] = changed(rows[0], state="INCONCLUSIVE", outcome="INCONCLUSIVE")
    [difference] = books.session_differences(cast(1), spoken, rows)
    assert "posted as INCONCLUSIVE, RESOLVED is right" in difference


def test_a_wrong_customer_is_named():
    rows, spoken = right_rows()
    rows[0] = replace(rows[0], customer="unattributed")
    [difference] = books.session_differences(PARTS, spoken, rows)
    assert "customer is 'unattributed'" in difference


def test_a_missing_and_an_extra_session_are_named():
    rows, spoken = right_rows()
    extra = changed(rows[0], conversation="another", session_id="ses_another")
    differences = books.session_differences(PARTS, spoken, [*rows[1:], replace(extra, id="out_another")])
    assert len(differences) == 2
    assert "conversation another is not in the script" in differences[1]


def test_an_outcome_that_stands_twice_is_named():
    rows, spoken = right_rows()
    differences = books.session_differences(PARTS, spoken, [rows[0], *rows])
    assert any("2 times" in difference for difference in differences)
    other_id = books.session_differences(PARTS, spoken, [replace(rows[0], id="out_x"), *rows])
    assert any("was posted as 2 outcomes" in difference for difference in other_id)


def test_an_agent_that_left_the_script_is_named():
    rows, spoken = right_rows(cast(1))
    [seen] = spoken[cast(1)[0].conversation]
    spoken[cast(1)[0].conversation] = [replace(seen, tool_calls=7)]
    [difference] = books.session_differences(cast(1), spoken, rows)
    assert "left the script" in difference
    spoken[cast(1)[0].conversation] = []
    [difference] = books.session_differences(cast(1), spoken, rows)
    assert "did not get to its last session" in difference


def test_resolutions_by_customer_add_up_by_hand():
    # Customers in turn of five, scenarios in turn of twelve; by hand for the first twelve conversations:
    # northwind has 0, 1, 3, 5, 6, 8, 10, 11. Kept: by tool, signal, thanked, returned (two), thanked late; taken back:
    # escalated after posting, disputed. globex has 2 (late signal) and 7; initech 4 and 9 (signalled three times).
    assert books.resolutions_expected(cast(12)) == {
        "northwind": Resolutions(charged=8, kept=6),
        "globex": Resolutions(charged=1, kept=1),
        "initech": Resolutions(charged=1, kept=1),
    }


@pytest.mark.parametrize(("resolutions", "cents"), [(0, 0), (5, 0), (6, 99), (25, 1980), (106, 9999)])
def test_the_charge_is_the_rate_times_what_is_not_free(resolutions, cents):
    assert TARIFF.charge(resolutions) == Decimal(cents) / 100


SEVEN_OF_EIGHT = Resolutions(charged=8, kept=7)


def invoice(**changes):
    """Eight charged, five of them free, one taken back."""
    line = {"charge": "c", "metric": "m", "quantity": 8, "free": 5, "billed": 3, "amount": "2.97"}
    sums = {"subtotal": "2.97", "credits": "0.99", "total": "1.98"}
    whole = {"customer": "globex", "period": "2026-11", "currency": "USD", "lines": [line], **sums}
    return whole | {"lines": [line | changes]} if set(changes) <= set(line) else whole | changes


def test_a_right_invoice_has_no_difference():
    assert books.invoice_differences("globex", invoice(), SEVEN_OF_EIGHT, TARIFF) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"quantity": 7},
        {"free": 4},
        {"billed": 2},
        {"amount": "2.98"},
        {"subtotal": "2.96"},
        {"credits": "0.00"},
        {"total": "1.97"},
        {"currency": "EUR"},
        {"customer": "initech"},
        {"lines": []},
    ],
)
def test_every_wrong_figure_of_an_invoice_is_named(changes):
    [difference] = books.invoice_differences("globex", invoice(**changes), SEVEN_OF_EIGHT, TARIFF)
    assert next(iter(changes)) in difference


# Two of each scenario. First events by hand, of each twelve: nine resolved (by tool, signal, before the help desk took
# over, thanked, returned twice, signalled three times, disputed, thanked late), two escalated, three inconclusive.
SUMMARY = {
    "sessions": 28,
    "free": 11,
    "charged": 7,
    "escalated": 4,
    "inconclusive": 6,
    "reversed": 4,
    "revised": 2,
    "revenue": "6.93",
    "held": 0,
    "not_billable": 0,
    "trial": 0,
    "unmatched": 0,
}


def test_a_right_summary_has_no_difference():
    assert books.summary_differences(PARTS, SUMMARY, TARIFF) == []


@pytest.mark.parametrize("name", SUMMARY)
def test_every_wrong_figure_of_the_summary_is_named(name):
    wrong = SUMMARY | {name: "6.94" if name == "revenue" else SUMMARY[name] + 1}
    [difference] = books.summary_differences(PARTS, wrong, TARIFF)
    assert name in difference


def test_the_tariff_is_read_from_the_plan():
    plan = {"rate_plan": {"pricing": {"rate": 0.99, "included_free": 5, "currency": "USD"}}}
    assert Tariff.of(plan) == TARIFF

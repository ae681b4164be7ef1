"""`sidecar tail`: every row once, whatever fails on the way, and what is said of it."""

import argparse
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import cli
from sidecar.cli import tail
from sidecar.cli.api import AwayError
from sidecar.cli.grammar import CommandError

START = datetime(2026, 11, 22, tzinfo=UTC)


class Api:
    """A ledger that grows, every third time by a decision, and an API that fails as told."""

    def __init__(self, fails, every=3):
        self.came = []
        self.rows = {"outcomes": [], "decisions": []}
        self.fails = fails
        self.every = every
        self.limits = []

    def get(self, path, *, customer=None, after=None, limit=100):
        if next(self.fails, False):
            raise CommandError("away")
        what = path.removeprefix("/v1/")
        if what not in self.rows:
            changed = [{"period": "2026-11", "currency": "USD", "amount": "0.99"}]
            taken = [row | {"changed": changed} for row in self.rows["decisions"]]
            return {"changed": changed, "decisions": taken}
        if what == "outcomes":
            self.limits.append(limit)
        found = [row for row in reversed(self.rows[what]) if after is None or row["seq"] < after]
        page = found[:limit]
        return {what: page, "next": page[-1]["seq"] if len(found) > limit else None}

    def grow(self, count):
        for _ in range(count):
            number = len(self.came)
            at = (START + timedelta(seconds=number)).isoformat()
            told = {"seq": number, "customer": "acme", "session_id": f"ses_{number}"}
            if number % self.every == self.every - 1:
                self.came.append((f"out_{number - 1}", "reverse"))
                told |= {"outcome": f"out_{number - 1}", "number": 1, "kind": "reverse", "assigned": None}
                self.rows["decisions"].append(told | {"actor": "ann", "reason": "disputed", "decided_at": at})
                continue
            self.came.append((f"out_{number}", "RESOLVED"))
            told |= {"id": f"out_{number}", "conversation": None, "state": "RESOLVED", "revision": 0, "held": False}
            told |= {"shadow": False, "event": {"data": {"reason": "r"}}, "received_at": at}
            self.rows["outcomes"].append(told)


@given(
    before=st.integers(0, 6),
    growth=st.lists(st.integers(0, 7), max_size=6),
    fails=st.lists(st.booleans(), max_size=40),
    since=st.none() | st.integers(-1, 8),
    page=st.integers(1, 4),
)
def test_every_row_is_shown_once_in_order_whatever_fails(before, growth, fails, since, page):
    api = Api(iter(fails))
    api.grow(before)
    begin = None if since is None else START + timedelta(seconds=since)
    source = tail.Ledger(api, begin, None)
    old = tail.PAGE, tail.PAGES_MAX
    tail.PAGE, tail.PAGES_MAX = page, 50  # more than all rows, however small a page is
    shown, begun = [], False
    try:
        for step in [0, *growth, *([0] * len(fails)), 0]:
            api.grow(step if begun else 0)
            try:
                shown.extend((event["outcome_id"], tail._what(event)) for event in source.look())
                begun = True
            except CommandError:
                continue
    finally:
        tail.PAGE, tail.PAGES_MAX = old
    first = before if since is None else min(max(since, 0), before)  # what arrives after the first look is new
    assert shown == api.came[first:]


def test_rows_past_the_bound_of_amounts_come_without(monkeypatch):
    monkeypatch.setattr(tail, "AMOUNTS_MAX", 2)
    api = Api(iter(()))
    api.grow(3)
    total = tail.Sum()
    for event in tail.Ledger(api, datetime(2026, 1, 1, tzinfo=UTC), None).look():
        total.add(event)
    assert (
        total.text() == "3 events: 2 RESOLVED, 1 reverse; +1.98 USD; 1 without their amount, which the sum leaves out"
    )


def test_more_rows_than_can_be_looked_at_are_said(monkeypatch, capsys):
    monkeypatch.setattr(tail, "PAGE", 2)
    monkeypatch.setattr(tail, "PAGES_MAX", 2)
    api = Api(iter(()), every=100)
    api.grow(9)
    assert len(list(tail.Ledger(api, datetime(2026, 1, 1, tzinfo=UTC), None).look())) == 4
    assert "more than 4 rows at once" in capsys.readouterr().err


def test_a_look_that_finds_nothing_new_asks_for_few_rows():
    api = Api(iter(()), every=1_000_000)
    api.grow(3 * tail.PAGE)
    source = tail.Ledger(api, None, None)
    assert list(source.look()) == list(source.look()) == []
    assert api.limits == [1, tail.FEW]
    api.grow(tail.FEW + tail.PAGE)
    assert len(list(source.look())) == tail.FEW + tail.PAGE
    assert api.limits[2:] == [tail.FEW, tail.PAGE, tail.PAGE], "more of them once there are more"


def test_a_sum_has_every_state_and_currency():
    total = tail.Sum()
    assert total.text() == "0 events"
    told = {"source": "billing", "state": "RESOLVED", "decision": None}
    total.add(told | {"amounts": [{"period": "p", "currency": "USD", "amount": "1000.50"}]})
    total.add(told | {"state": "REVERSED", "amounts": [{"period": "p", "currency": "EUR", "amount": "-2"}]})
    assert total.text() == "2 events: 1 RESOLVED, 1 REVERSED; -2 EUR; +1000.50 USD"
    assert total.money["USD"] == Decimal("1000.50")


@pytest.mark.parametrize(("text", "means"), [("90s", 90), ("10m", 600), ("1h", 3600), ("2d", 172_800)])
def test_stretches_of_time(text, means):
    assert tail.ago(text) == timedelta(seconds=means)


def test_an_instant_needs_a_zone():
    assert tail.ago("2026-11-22T10:00:00+01:00") == datetime(2026, 11, 22, 9, tzinfo=UTC)
    with pytest.raises(Exception, match="a time like"):
        tail.ago("2026-11-22T10:00:00")


@pytest.mark.parametrize("text", ["36501d", "999999d", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_no_calendar_has_is_wrong_usage(text, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["tail", "--since", text])
    assert ended.value.code == cli.WRONG_USAGE
    assert "write " in capsys.readouterr().err


def test_the_longest_stretch_is_an_instant():
    assert datetime(2026, 11, 22, tzinfo=UTC) - tail.ago("36500d") < datetime(2000, 1, 1, tzinfo=UTC)


class EndedError(Exception):
    """The test has seen enough."""


def test_a_source_that_is_away_is_asked_again_later_and_later(monkeypatch, capsys):
    asked, waited = [], []

    def look():
        asked.append(len(asked))
        if len(asked) == 12:
            raise EndedError
        if 2 <= len(asked) < 10:
            raise CommandError("the billing API does not answer", "start it")
        return iter(())

    monkeypatch.setattr(tail.time, "sleep", waited.append)
    arguments = argparse.Namespace(interval=1.0, json=True, customer=None, no_follow=False, since=None)
    with pytest.raises(EndedError):
        tail._follow(look, arguments, tail.Sum())
    assert waited == [1.0, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0, 15.0, 1.0, 1.0]
    assert capsys.readouterr().err == "sidecar: the billing API does not answer; it is asked again and again\n"


def test_a_source_that_will_answer_later_is_waited_for_from_the_beginning(monkeypatch):
    monkeypatch.setattr(tail.time, "sleep", lambda _: None)
    answers = [AwayError("the observer does not answer"), EndedError()]

    def look():
        raise answers.pop(0)

    arguments = argparse.Namespace(interval=1.0, json=True, customer=None, no_follow=False, since=None)
    with pytest.raises(EndedError):
        tail._follow(look, arguments, tail.Sum())


def test_a_source_that_never_answered_is_an_error():
    def look():
        raise CommandError("does not answer")

    with pytest.raises(CommandError):
        tail._follow(look, argparse.Namespace(no_follow=False), tail.Sum())


def test_a_decision_says_who_decided_what_and_what_that_changed():
    api = Api(iter(()))
    api.grow(3)
    *_, event = tail.Ledger(api, START, None).look()
    shown = tail.line(event)
    assert "  acme " in shown
    assert "  reverse " in shown
    assert shown.endswith("0.99 USD  ann: disputed")
    assert event["decision"] == {"kind": "reverse", "actor": "ann"}
    assert (event["outcome_id"], event["state"], event["conversation"]) == ("out_1", None, None)

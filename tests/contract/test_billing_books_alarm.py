"""The alarm of the books: it comes when events are missing for an hour, goes when they come, and has no other cause."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
import yaml
from billing_api import NOW_US, Clock, event, get, post, statement
from promql import firing, series_of
from stating import HOUR_US, MINUTE_US, SECOND_US, Counters, Final, finals, instant, statements

from sidecar.billing.ledger import stated as stated_module

DAY = 24  # hours


ALERTS = Path(__file__).resolve().parents[2] / "helm" / "outcome-sidecar" / "monitoring" / "alerts.yaml"
[RULE] = [
    rule
    for group in yaml.safe_load(ALERTS.read_text())["groups"]
    for rule in group["rules"]
    if rule["alert"] == "BillingBooksOpen"
]


async def metrics(api: httpx.AsyncClient) -> str:
    return (await api.get("/metrics")).text


async def test_a_statement_every_hour_does_not_put_the_alarm_off(api: httpx.AsyncClient, clock: Clock) -> None:
    await post(api, event(0))
    raised, scraped = [], []
    for minute in range(0, 3 * 60, 5):
        clock.now_us = NOW_US + minute * MINUTE_US + 3 * SECOND_US
        if minute % 60 == 0:
            await post(api, statement(minute, instant(clock.now_us), 11))
        found = await get(api, "/v1/books")
        assert found["difference"] == 10
        if found["alarm"]:
            raised.append(minute)
        [value] = re.findall(r'^sidecar_billing_statement_alarm{tenant="acme"} (.+)$', await metrics(api), re.MULTILINE)
        scraped.append(f"{value}x4")  # as often as Prometheus asks, here each answer five times
    assert raised == list(range(60, 3 * 60, 5))
    series = series_of({'sidecar_billing_statement_alarm{namespace="n",pod="p",tenant="acme"}': " ".join(scraped)})
    assert firing(RULE, series, 64 * 60) == []
    for minute in (65, 125, 3 * 60 - 1):
        [(labels, _)] = firing(RULE, series, minute * 60)
        assert (labels["tenant"], labels["severity"]) == ("acme", "critical")
    await post(api, *(event(n) for n in range(1, 10)))
    found = await get(api, "/v1/books")
    assert (found["difference"], found["alarm"], found["tenants"][0]["overdue"]["missing"]) == (1, True, 1)
    await post(api, event(10))
    found = await get(api, "/v1/books")
    assert (found["difference"], found["alarm"], found["tenants"][0]["overdue"]["missing"]) == (0, False, 0)


@pytest.mark.parametrize("summed_up", [False, True])
async def test_what_came_later_in_the_same_minute_does_not_stand_in(
    api: httpx.AsyncClient, clock: Clock, summed_up: bool
) -> None:
    at_us = NOW_US + 3 * SECOND_US
    await post(api, event(0, time=instant(at_us)))
    await post(api, statement(1, instant(at_us), 11))
    await post(api, *(event(n, time=instant(at_us + n * SECOND_US)) for n in range(1, 21)))
    if summed_up:
        await api.upkeep.settle()
    for hours in range(2):
        clock.now_us = at_us + hours * HOUR_US
        found = await get(api, "/v1/books")
        [tenant] = found["tenants"]
        assert tenant["compared"] == {"stated": 11, "arrived": 1}
        assert (tenant["difference"], tenant["arrived_since"], found["alarm"]) == (10, 20, hours == 1)


async def test_what_came_later_in_the_same_hour_stands_in_for_an_hour_at_most(
    api: httpx.AsyncClient, clock: Clock
) -> None:
    """A session is counted when a sidecar gets to it, whatever its time; no clock tells, the next statement does."""
    known = [Final(n, NOW_US + SECOND_US, NOW_US + SECOND_US, 0) for n in range(11)]
    later = [Final(n, NOW_US + MINUTE_US, NOW_US + MINUTE_US, 0) for n in range(11, 31)]
    counters = Counters("g1", NOW_US, [*known, *later])
    await post(api, counters.statement(NOW_US + 3 * SECOND_US), *(one.event() for one in [known[0], *later]))
    clock.now_us = NOW_US + HOUR_US
    await post(api, counters.statement(clock.now_us))
    assert (await get(api, "/v1/books"))["difference"] == 10
    clock.now_us += HOUR_US
    found = await get(api, "/v1/books")
    assert (found["alarm"], found["tenants"][0]["compared"]) == (True, {"stated": 31, "arrived": 21})


def _minutes(*posts: tuple[int, dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    return sorted(posts, key=lambda one: one[0])


async def _live(api: httpx.AsyncClient, clock: Clock, posts: list[tuple[int, dict[str, Any]]], hours: int) -> list[int]:
    """Post everything at its time; returns the hours in which there was an alarm."""
    raised, done = [], 0
    for hour in range(hours):
        clock.now_us = NOW_US + hour * HOUR_US
        due = done
        while due < len(posts) and posts[due][0] <= clock.now_us:
            due += 1
        if due > done:
            await post(api, *(one for _, one in posts[done:due]), kind=None)
            done = due
        if hour % 10 == 0:
            await api.upkeep.settle()
        found = (await api.billing.books()).tenants
        assert all(one["difference"] >= 0 for one in found)
        if any(one["alarm"] for one in found):
            raised.append(hour)
    return raised


async def test_a_week_of_a_healthy_sidecar_is_quiet(api: httpx.AsyncClient, clock: Clock) -> None:
    """Though Redis loses its data in the middle, and what a day's journals hold is counted again."""
    random, week = Random(1), 7 * DAY
    everything = finals(random, week, 2, away_us=5 * HOUR_US)
    lost_us = NOW_US + 3 * DAY * HOUR_US + random.randint(0, HOUR_US)
    again = [
        replace(one, counted_us=lost_us + (one.counted_us - lost_us + DAY * HOUR_US) // 100)
        for one in everything
        if lost_us - DAY * HOUR_US < one.counted_us <= lost_us
    ]
    after = [one for one in everything if one.counted_us > lost_us]
    lives = [Counters("g1", NOW_US, [one for one in everything if one.counted_us <= lost_us])]
    lives.append(Counters("g2", lost_us, again + after))
    posts = [(one.posted_us, one.event()) for one in everything] + statements(random, lives, week)
    assert await _live(api, clock, _minutes(*posts), week) == []
    [tenant] = (await api.billing.books()).tenants
    assert tenant["generation"] == "g2"


async def test_one_lost_among_many_is_an_alarm_until_it_is_found(api: httpx.AsyncClient, clock: Clock) -> None:
    random, hours = Random(3), 84
    everything = finals(random, hours, 4, away_us=0)
    gone = min((one for one in everything if one.counted_us > NOW_US + 5 * HOUR_US), key=lambda one: one.counted_us)
    posts = [(one.posted_us, one.event()) for one in everything if one is not gone]
    posts += statements(random, [Counters("g1", NOW_US, everything)], hours)
    raised = await _live(api, clock, _minutes(*posts), hours)
    # The statement after its hour may miss some of it, the next one does not: half an hour on the way, and an hour old.
    assert raised[0] <= (gone.at_us - NOW_US) // HOUR_US + 4
    assert raised == list(range(raised[0], hours)), "its hour is not told apart by now, and it lacks"
    await post(api, gone.event())
    assert not (await get(api, "/v1/books"))["alarm"]


async def test_statements_out_of_order_and_from_a_clock_ahead(api: httpx.AsyncClient, clock: Clock) -> None:
    known = [Final(n, NOW_US, NOW_US, 0) for n in range(5)]
    counters = Counters("g1", NOW_US - HOUR_US, known)
    await post(api, *(one.event() for one in known), counters.statement(NOW_US + 5 * HOUR_US))
    clock.now_us += 2 * HOUR_US
    counters.finals += [Final(n, NOW_US + HOUR_US, NOW_US + HOUR_US, 0) for n in range(5, 8)]
    await post(api, counters.statement(NOW_US + 2 * HOUR_US))
    await post(api, counters.statement(NOW_US + 30 * MINUTE_US))  # it waited in an outbox
    found = await get(api, "/v1/books")
    assert (found["tenants"][0]["stated"]["finalized"], found["difference"], found["alarm"]) == (8, 3, False)
    clock.now_us += HOUR_US
    found = await get(api, "/v1/books")
    assert (found["tenants"][0]["overdue"]["missing"], found["alarm"]) == (3, True)
    assert found["tenants"][0]["overdue"]["stated_at"] == instant(NOW_US + 2 * HOUR_US)


async def test_a_statement_of_lost_counters_alarms_until_the_new_ones_are_an_hour_old(
    api: httpx.AsyncClient, clock: Clock
) -> None:
    old = Counters("g1", NOW_US, [Final(n, NOW_US, NOW_US, 0) for n in range(4)])
    await post(api, *(one.event() for one in old.finals[:3]), old.statement(NOW_US + SECOND_US))
    clock.now_us += HOUR_US
    new = Counters("g2", clock.now_us, [Final(9, clock.now_us, clock.now_us, 0)])
    await post(api, new.finals[0].event(), new.statement(clock.now_us))
    found = await get(api, "/v1/books")
    assert (found["difference"], found["tenants"][0]["overdue"]["missing"], found["alarm"]) == (0, 1, True)
    clock.now_us += HOUR_US
    assert not (await get(api, "/v1/books"))["alarm"]


@pytest.mark.parametrize(
    "hours", [{"2026-11-22": 2}, {"2026-11-22T10": "2"}, [2], {f"2026-11-22T{n}": 0 for n in range(24, 1100)}]
)
async def test_hours_of_another_make_are_as_if_none_were_told(api: httpx.AsyncClient, hours: Any) -> None:
    await post(api, event(0), statement(1, instant(NOW_US), 2, finalized_by_hour=hours), kind=None)
    [tenant] = (await get(api, "/v1/books"))["tenants"]
    assert tenant["compared"] == {"stated": 2, "arrived": 1}


async def test_where_counters_began_anew_is_found_without_reading_them_all(
    api: httpx.AsyncClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of statements that tell no hours, 300 of each of three generations."""
    stated = [
        statement(n, instant(NOW_US + n * HOUR_US), 1000 * (n // 300 + 1) + n, f"g{n // 300}") for n in range(900)
    ]
    stated[599] = statement(599, instant(NOW_US + 599 * HOUR_US), 7, "g1", opened="many")
    stated[600] = statement(600, instant(NOW_US + 600 * HOUR_US), 7, "g2", opened="many")
    for start in range(0, len(stated), 100):
        await post(api, *stated[start : start + 100])
    known, parsed = stated_module.read, []
    monkeypatch.setattr(stated_module, "read", lambda row: parsed.append(row["id"]) or known(row))
    [tenant] = (await api.billing.books()).tenants
    assert tenant["since"] == instant(NOW_US + 601 * HOUR_US)
    assert tenant["compared"] == {"stated": 298, "arrived": 0}
    assert len(parsed) < 200

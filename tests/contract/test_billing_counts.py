"""Counts in statements that cannot be any: rejected with their names, and what came with them is taken."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from billing_api import NOW_US, event, get, post, serving, statement
from sqlalchemy.engine import URL
from stating import instant

MOST = (1 << 53) - 1


@pytest.fixture
async def api(ledger_url: URL) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(ledger_url) as client:
        yield client


async def test_a_count_that_cannot_be_one_is_rejected_by_name(api: httpx.AsyncClient) -> None:
    bad = statement(1, instant(NOW_US), 2, finalized={"RESOLVED": 1, "REVERSED": -1})
    answer = await post(api, event(1), bad, statement(2, instant(NOW_US), 2))
    assert answer["accepted"] == 2
    reason = "data: finalized.REVERSED is a count: a whole number from 0 to 9007199254740991"
    assert answer["rejected"] == [{"id": "sta_1", "reason": reason}]
    assert (await post(api, bad))["rejected"] == answer["rejected"]
    assert (await get(api, "/v1/books"))["tenants"][0]["stated"]["finalized"] == 2


async def test_the_largest_counts_break_nothing(api: httpx.AsyncClient) -> None:
    changes = {"opened": MOST, "open": 0, "finalized": {"RESOLVED": MOST}}
    answer = await post(api, statement(1, instant(NOW_US), 2, **changes, finalized_by_hour={"2026-11-22T10": MOST}))
    assert answer == {"accepted": 1, "duplicates": 0, "rejected": []}
    assert (await get(api, "/v1/books"))["difference"] == MOST
    assert (await api.get("/metrics")).status_code == 200


async def test_what_is_no_number_is_of_another_make_and_kept(api: httpx.AsyncClient) -> None:
    one = statement(1, instant(NOW_US), 2, opened="many", finalized_by_hour=[-1], counters={"late": -1})
    assert (await post(api, one))["accepted"] == 1
    assert (await get(api, "/v1/books"))["tenants"] == []

"""The sender against answers that are not a target's usual ones; on SQLite, for none of it depends on the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from billing_api import DAY_US, Clock, event, post
from export_fake import Fake
from export_targets import Hook
from exporting import METER, Setting, exporting, feed_until_idle
from sqlalchemy.engine import URL

from sidecar.billing.exports.outbox import CLAIM_US
from sidecar.billing.exports.sender import ANSWER_BYTES_MAX
from sidecar.billing.ledger.database import sqlite_url

ONE_AT_A_TIME = "  concurrency_max: 1\n"


@pytest.fixture
def file_url(tmp_path: Path) -> URL:
    return sqlite_url(tmp_path / "billing.sqlite3")


def answering(fake: Fake, *answers: web.Response) -> None:
    """Let a fake answer so once each, whatever it is sent, and then as usual."""
    left, usual = list(answers), fake.answer
    fake.answer = lambda *request: left.pop(0) if left else usual(*request)


async def reason(it: Setting, kind: str) -> str:
    [entry] = await it.entries(kind, "waiting")
    return entry["reason"]


async def test_a_redirection_is_not_followed(file_url: URL) -> None:
    """What is sent is for the target that the file names and for nobody else."""
    async with exporting(file_url, ["webhook"]) as it:
        fake = it.fakes["webhook"]
        answering(fake, web.Response(status=307, headers={"Location": "/elsewhere"}))
        await post(it.api, event(1))
        await it.run()
        assert [path for path, _, _ in fake.requests] == ["/"]
        assert await reason(it, "webhook") == "answered 307"
        await it.run(10)
        assert fake.total(METER) == 1


async def test_an_answer_may_be_compressed(file_url: URL) -> None:
    async with exporting(file_url, ["polar"]) as it:
        fake = it.fakes["polar"]
        usual = fake.answer

        def compressed(*request: Any) -> web.Response:
            answer = usual(*request)
            answer.enable_compression(web.ContentCoding.gzip)
            return answer

        fake.answer = compressed
        await post(it.api, event(1))
        await it.run()
        assert (await it.meter("polar"))["acknowledged"] == 1


async def test_an_answer_without_end_is_not_read_to_its_end(file_url: URL) -> None:
    async with exporting(file_url, ["webhook"]) as it:
        answering(it.fakes["webhook"], web.Response(body=b"x" * (ANSWER_BYTES_MAX + 1)))
        await post(it.api, event(1))
        await it.run()
        assert f"more than {ANSWER_BYTES_MAX} bytes" in await reason(it, "webhook")
        await it.run(10)
        assert (await it.meter("webhook"))["acknowledged"] == 1


class Gone(Hook):
    """Nobody listens there."""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        async with super().listening():
            pass
        yield self.url


async def test_where_nobody_listens_nothing_is_ever_in_doubt(file_url: URL) -> None:
    async with exporting(file_url, ["webhook"], fakes={"webhook": Gone(Clock())}) as it:
        await post(it.api, event(1))
        for _ in range(3):
            await it.run(2 * DAY_US // 1_000_000)
        shown = await it.meter("webhook")
        assert (shown["waiting"], shown["parked"]) == (1, 0)
        assert "connect" in (await reason(it, "webhook")).lower()


async def test_a_target_is_left_alone_for_as_long_as_it_asks_and_no_longer(file_url: URL) -> None:
    async with exporting(file_url, ["webhook"], more=ONE_AT_A_TIME) as it:
        fake = it.fakes["webhook"]
        await post(it.api, event(1), event(2))
        for asked, left_alone in (("7", 7), ("600", 60), (None, 1)):
            headers = {"Retry-After": asked} if asked else None
            answering(fake, web.Response(status=429, headers=headers))
            before = len(fake.requests)
            await it.run()
            assert len(fake.requests) == before + 1, "to all of them"
            it.clock.now_us -= 1
            await it.run(left_alone)
            assert len(fake.requests) == before + 1
            it.clock.now_us += 1
            await it.run()
            assert len(fake.requests) > before + 1
            await it.run(600)
            await post(it.api, event(before + 10), event(before + 11))
        await it.run(600)
        assert fake.total(METER) == 8


async def test_one_that_took_it_may_ask_for_patience_in_vain(file_url: URL) -> None:
    async with exporting(file_url, ["webhook"], more=ONE_AT_A_TIME) as it:
        fake = it.fakes["webhook"]
        answering(fake, web.Response(status=204, headers={"Retry-After": "60"}))
        await post(it.api, event(1), event(2))
        await it.run()
        assert len(fake.requests) == 2


async def test_only_what_is_due_while_all_requests_are_on_their_way_is_held_up(file_url: URL) -> None:
    async with exporting(file_url, ["webhook"], more=ONE_AT_A_TIME) as it:
        [sender] = it.senders
        await post(it.api, event(1))
        await it.run()
        assert sender.held_up == 0
        await post(it.api, event(2), event(3), event(4))
        await it.run()
        assert sender.held_up == 2


async def test_who_ends_waits_for_no_answer_and_another_sends_it_again(file_url: URL) -> None:
    async with exporting(file_url, ["webhook"], replicas=2) as it:
        fake = it.fakes["webhook"]
        await post(it.api, event(1))
        await it.note()
        fake.open.clear()
        first, second = it.senders
        assert await first.feed()
        async with asyncio.timeout(20):
            while not fake.under_way:
                await asyncio.sleep(0.01)
            await first.close()
        fake.open.set()
        assert first.results == {}
        assert not await second.feed()
        it.clock.now_us += CLAIM_US
        await feed_until_idle([second])
        assert second.results["taken"] == 1
        assert fake.total(METER) == 1


@pytest.mark.parametrize("kind", ["webhook", "lago"])
async def test_an_answer_that_never_comes_leaves_the_doubt(
    file_url: URL, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.billing.exports.sender.REQUEST_SECONDS", 0.2)
    async with exporting(file_url, [kind]) as it:
        fake = it.fakes[kind]
        await post(it.api, event(1))
        fake.open.clear()
        await it.run()
        [entry] = await it.entries(kind)
        assert (entry["state"], entry["reason"]) == ("waiting", "TimeoutError")
        fake.open.set()
        memory = getattr(fake, "memory_us", None)
        await it.run((memory or DAY_US) // 1_000_000)
        shown = await it.meter(kind)
        assert shown["causes"] == ({"ambiguous": 1} if memory else {})

"""Pages of the console as words, and long work asked for on them and waited for there."""

from __future__ import annotations

import asyncio
import html
import re

from console_pages import Console, Page

PATIENCE_SECONDS = 90


def words(page: Page) -> str:
    """What a reader sees: every tag is a blank."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page.answer.text)).split())


async def finished(console: Console, path: str) -> Page:
    """The page when nothing on it goes on any more."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            page = await console.page(path)
            if "data-refreshes" not in page.answer.text:
                return page
            assert '<meta http-equiv="refresh"' in page.answer.text, "without script it comes back as well"
            await asyncio.sleep(0.05)


async def worked_out(console: Console, path: str) -> Page:
    """Ask by the form that the page at this address has, and wait."""
    form = (await console.page(path)).form(path)
    answer = await console.http.post(path, data=form.fields)
    assert (answer.status_code, answer.headers["location"]) == (303, path), answer.text
    return await finished(console, path)

"""Every page, on every ledger: whole, without complaints, and for people with a phone, a keyboard, a reader."""

import re
from urllib.parse import quote

import hostile
import pytest
from browsing import PHONE

from sidecar.billing.console.routes import PAGES

pytestmark = pytest.mark.asyncio(loop_scope="session")
# What a page's path may name → what stands there, by ledger.
NAMED = {
    "empty": {},
    "seeded": {"customer": "northwind", "plan": "capped", "target": "stripe"},
    "hostile": {"customer": hostile.CUSTOMER, "session": hostile.SESSION, "plan": hostile.PLAN},
}
MONTH = "2026-11"


def address(path, ledger):
    named = NAMED[ledger]
    return re.sub(r"\{(\w+)\}", lambda found: quote(named[found[1]], safe=""), path)


WITHOUT_NAMES = [path for path in PAGES if "{" not in path]


async def look_at(window, path, ledger):
    """Open a page of which nothing may be missing."""
    answer = await window.open(address(path, ledger))
    assert answer.status == 200, await window.text("main")
    assert await window.page.locator("h1").count() == 1
    assert re.fullmatch(r".+ – Outcomes", await window.page.title())


@pytest.mark.parametrize("path", WITHOUT_NAMES)
async def test_a_page_without_data_says_what_will_be_there(path, ledgers, visit):
    window = await visit(ledgers["empty"])
    await look_at(window, path, "empty")
    assert len(await window.text("main")) > 60
    assert await window.axe() == []


@pytest.mark.parametrize("path", PAGES)
async def test_everybody_can_use_a_page_whatever_they_use_it_with(path, ledgers, visit):
    window = await visit(ledgers["seeded"])
    await look_at(window, path, "seeded")
    await window.demand_keyboard()
    assert await window.axe() == []
    await window.page.emulate_media(color_scheme="dark")
    assert await window.axe("color-contrast") == []
    await window.page.set_viewport_size(PHONE)
    await window.demand_width()


@pytest.mark.parametrize("path", PAGES)
async def test_no_text_of_others_becomes_part_of_a_page(path, ledgers, visit):
    window = await visit(ledgers["hostile"], viewport=PHONE)
    await look_at(window, path, "hostile")
    assert await window.page.locator("[onerror], [onmouseover], img, script:not([src])").count() == 0
    assert "49" not in await window.page.title()  # a template in an id stays a text
    await window.demand_width()


async def test_the_skip_link_leads_past_the_navigation(ledgers, visit):
    window = await visit(ledgers["seeded"])
    await window.open("/")
    await window.page.keyboard.press("Tab")
    assert await window.page.evaluate("document.activeElement.textContent") == "Skip to content"
    await window.page.keyboard.press("Enter")
    assert await window.page.evaluate("document.activeElement.id") == "content"
    await window.page.keyboard.press("Tab")
    assert await window.page.evaluate("document.querySelector('main').contains(document.activeElement)")

"""Every page, on every ledger: whole, without complaints, and for people with a phone, a keyboard, a reader."""

import re

import pytest
import pytest_asyncio
from browsing import DESKTOP, PHONE

from sidecar.billing.console.routes import PAGES

pytestmark = pytest.mark.asyncio(loop_scope="session")
SHOWN = [path for path in PAGES if not path.endswith(".csv")]
WITHOUT_NAMES = [path for path in SHOWN if "{" not in path]


@pytest_asyncio.fixture(loop_scope="session")
async def look_at(windows, ledgers):
    """Opens pages of which nothing may be missing; whatever they complained of fails the test at its end."""
    used = []

    async def look(ledger, path, size=DESKTOP, scheme="light"):
        window = windows[ledger]
        used.append(window)
        await window.page.set_viewport_size(size)
        await window.page.emulate_media(color_scheme=scheme)
        answer = await window.open(ledgers[ledger].address(path))
        await demand_whole(window, answer)
        return window

    yield look
    for window in used:
        await window.demand_calm()


async def demand_whole(window, answer):
    assert answer.status == 200, await window.text("main")
    assert await window.page.locator("h1").count() == 1
    assert re.fullmatch(r".+ – Outcomes", await window.page.title())


@pytest.mark.parametrize("path", WITHOUT_NAMES)
async def test_a_page_without_data_says_what_will_be_there(path, look_at):
    window = await look_at("empty", path)
    assert len(await window.text("main")) > 40
    assert await window.axe() == []


@pytest.mark.parametrize("path", SHOWN)
async def test_everybody_can_use_a_page_whatever_they_use_it_with(path, look_at):
    window = await look_at("company", path)
    await window.demand_keyboard()
    assert await window.cut() == []
    assert await window.axe() == []
    await window.page.emulate_media(color_scheme="dark")
    assert await window.axe("color-contrast") == []
    await window.page.set_viewport_size(PHONE)
    await window.demand_width()


@pytest.mark.parametrize("path", SHOWN)
async def test_no_text_of_others_becomes_part_of_a_page(path, look_at):
    window = await look_at("hostile", path, PHONE)
    assert await window.page.locator("[onerror], [onmouseover], img, script:not([src])").count() == 0
    await window.demand_width()


# Tables that stay tables on a phone: many numbers in columns, two files side by side.
SCROLLED = {"Sessions by day", "The files side by side"}


@pytest.mark.parametrize("path", SHOWN)
async def test_on_a_phone_the_rows_of_a_table_are_cards_that_hide_nothing(path, look_at):
    """Every value stands under the name of its column, for the eye and for a screen reader alike."""
    window = await look_at("company", path, PHONE)
    assert set(await window.cut()) <= SCROLLED
    wrong = await window.page.evaluate(
        """[...document.querySelectorAll(".stacks")].flatMap((table) => {
          const names = [...table.querySelectorAll("thead th")].map((one) => one.innerText.trim());
          return [...table.querySelectorAll("tbody > tr, tfoot > tr")].flatMap((row) =>
            [...row.cells].map((cell, number) => [cell, names[number]]));
        }).filter(([cell, name]) => cell.checkVisibility() && !cell.hasAttribute("colspan")
            && (cell.tagName === "TD" || cell.dataset.label)
            && !cell.querySelector("input[type=checkbox]") && (cell.dataset.label ?? "") !== name)
          .map(([cell, name]) => `${cell.outerHTML.slice(0, 120)}, not ${name}`)"""
    )
    assert wrong == []
    tables = await window.page.locator(".stacks").count()
    seen = await window.page.locator("main").aria_snapshot()
    assert len(re.findall(r"^ *- table", seen, re.MULTILINE)) >= tables, seen
    assert not tables or re.search(r"^ *- (cell|rowheader)", seen, re.MULTILINE), seen
    assert await window.axe() == []


async def test_the_texts_of_the_chart_keep_their_size_on_a_phone(look_at):
    size = "document.querySelector('.axis').getBoundingClientRect().height"
    wide = await (await look_at("company", "/")).page.evaluate(size)
    narrow = await (await look_at("company", "/", PHONE)).page.evaluate(size)
    assert wide == narrow >= 12


@pytest.mark.parametrize("path", SHOWN)
async def test_on_paper_nothing_is_cut_off_and_no_heading_stands_alone(path, look_at):
    window = await look_at("company", path)
    await window.page.emulate_media(media="print")
    await window.page.set_viewport_size({"width": 673, "height": 986})  # what A4 leaves within its margins
    apart = "[...document.querySelectorAll('h2, h3')].filter((one) => getComputedStyle(one).breakAfter !== 'avoid')"
    assert await window.page.evaluate(f"{apart}.length") == 0
    assert await window.cut() == []
    await window.demand_width()
    await window.page.emulate_media(media="screen")


async def test_the_skip_link_leads_past_the_navigation(look_at):
    window = await look_at("company", "/")
    await window.page.keyboard.press("Tab")
    assert await window.page.evaluate("document.activeElement.textContent") == "Skip to content"
    await window.page.keyboard.press("Enter")
    assert await window.page.evaluate("document.activeElement.id") == "content"
    await window.page.keyboard.press("Tab")
    assert await window.page.evaluate("document.querySelector('main').contains(document.activeElement)")


async def test_an_invoice_prints_on_one_page_without_what_is_for_screens(look_at):
    window = await look_at("company", "/customers/{id}/invoice")
    await window.page.emulate_media(media="print")
    for unprinted in ("header.frame", "footer.frame", ".month", "a.skip", "main button"):
        assert await window.page.locator(unprinted).first.is_hidden(), unprinted
    assert await window.page.locator("main .total strong").is_visible()
    printed = await window.page.pdf(format="A4", prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 1
    await window.page.emulate_media(media="screen")


async def test_what_is_not_there_is_a_page_that_says_so(windows, ledgers):
    window = windows["company"]
    answer = await window.open("/sessions/none")
    assert answer.status == 404
    assert await window.text("main [role=alert]") == "no outcome of session 'none' has arrived"
    assert await window.axe() == []
    window.expected = ("404",)
    await window.demand_calm()


async def test_the_browser_would_stop_what_a_page_must_not_load_and_the_tests_would_see_it(ledgers, visit):
    window = await visit(ledgers["empty"])
    answer = await window.open("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    await window.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "document.title = 'ran'";
          const image = document.createElement("img");
          image.src = "https://elsewhere.example/x.png";
          document.body.append(script, image);
        }"""
    )
    await window.until("violations.length === 2")
    assert await window.page.title() != "ran"
    with pytest.raises(AssertionError, match=r"script-src-elem inline.*img-src https://elsewhere\.example"):
        await window.demand_calm()
    await window.page.evaluate("violations.length = 0")

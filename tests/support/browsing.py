"""A real browser, and a window of it that remembers whatever the page complained of."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from chromium import AXE, chromium_path
from playwright.async_api import Browser, BrowserContext, Page, Request, Response, async_playwright

_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
PATIENCE_SECONDS = 30
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
_LISTEN = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""
# Where Tab stops, in the order of the document; what is in a closed <details> or dialog is not rendered. Of the choices
# of one question it is the one that is chosen, or the first.
_STOPS = """
window.stops = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")]
  .filter((one) => one.checkVisibility({visibilityProperty: true}) && !one.disabled && one.type !== "hidden")
  .filter((one) => one.type !== "radio" || one === (document.querySelector(`[name="${one.name}"]:checked`)
    ?? document.querySelector(`[name="${one.name}"]`)));
stops.map((one, number) => number)
"""
_MISSED = (
    "(stopped) => stops.filter((one, number) => !stopped.includes(number)).map((one) => one.outerHTML.slice(0, 120))"
)
# Notes every stop, and whether one sees where the focus is.
_WALK = """
window.reached = [];
document.addEventListener("focusin", ({target}) => {
  const look = getComputedStyle(target), box = target.getBoundingClientRect();
  const marked = look.outlineStyle !== "none" && parseFloat(look.outlineWidth) >= 2;
  const inView = box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
  reached.push({stop: stops.indexOf(target), unseen: marked && inView ? "" : target.outerHTML.slice(0, 120)});
})
"""


@asynccontextmanager
async def chromium(**environ: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium_path(), args=list(_ARGUMENTS), env={**os.environ, **environ}
        )
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Visit:
    """A window on one server. `complaints`: errors of the console, of scripts and of loading, and foreign requests."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()  # parts of complaints that a test provokes

    @property
    def context(self) -> BrowserContext:
        return self.page.context

    async def open(self, path: str) -> Response:
        answer = await self.page.goto(self.url + path)
        assert answer is not None
        return answer

    async def log_in(self, token: str, name: str = "Ann", wanted: str = "/") -> None:
        """By the form, as a visitor would; ends wherever the login leads."""
        await self.open(f"/login?next={wanted}")
        await self.page.get_by_label("Your name").fill(name)
        await self.page.get_by_label("Token").fill(token)
        async with self.page.expect_navigation():
            await self.page.get_by_role("button", name="Log in").click()

    async def text(self, selector: str) -> str:
        return (await self.page.locator(selector).inner_text()).strip()

    async def until(self, expression: str) -> None:
        """Wait until a script's expression holds; Playwright's own way is `eval`, which the policy forbids."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not await self.page.evaluate(expression):
            assert time.monotonic() < deadline, f"not so: {expression}"
            await asyncio.sleep(0.03)

    async def demand_calm(self) -> None:
        """Fail with whatever was complained of."""
        violations = await self.page.evaluate("window.violations") or []
        found = [one for one in self.complaints + violations if not any(part in one for part in self.expected)]
        self.complaints.clear()
        assert found == [], found

    async def axe(self, *rules: str) -> list[str]:
        """What axe-core finds wrong by some rules, or by all, best practices included; as sentences."""
        if not await self.page.evaluate("Boolean(window.axe)"):
            await self.page.evaluate(_axe_source())
        options: dict[str, Any] = {"resultTypes": ["violations"]}
        if rules:
            options["runOnly"] = list(rules)
        run = "(options) => axe.run(document, options).then((found) => found.violations)"
        violations = await self.page.evaluate(run, options)
        return [_sentence(one) for one in violations]

    async def demand_width(self) -> None:
        """Fail when the page has to be scrolled sideways."""
        wide = await self.page.evaluate(
            """[...document.querySelectorAll("body *")].filter((one) => {
              if (document.documentElement.scrollWidth <= innerWidth) return false;
              return one.getBoundingClientRect().right > innerWidth + 1;
            }).map((one) => one.outerHTML.slice(0, 160))"""
        )
        assert wide == [], wide

    async def cut(self) -> list[str]:
        """The tables of which a part is seen only when they are scrolled sideways."""
        found: list[str] = await self.page.evaluate(
            """[...document.querySelectorAll(".wide")].filter((one) => one.scrollWidth > one.clientWidth + 1)
              .map((one) => one.getAttribute("aria-label") ?? one.innerText.slice(0, 160))"""
        )
        return found

    async def demand_keyboard(self, most: int = 30) -> None:
        """Tab, from the top of the page on, stops at every control in the document's order, and one sees where."""
        stops = await self.page.evaluate(_STOPS)
        await self.page.evaluate(_WALK)
        expected = stops[:most]
        pressed, reached = 0, []
        # A field for a month or a time has stops of its own inside, which the browser marks itself.
        while len(reached) < len(expected) and pressed < 4 * most:
            for _ in range(len(expected) - len(reached)):
                await self.page.keyboard.press("Tab")
                pressed += 1
            reached = await self.page.evaluate("reached")
        stopped = [one["stop"] for one in reached]
        assert stopped == expected, f"{stopped}, not {expected}; {await self.page.evaluate(_MISSED, stopped)}"
        unseen = [one["unseen"] for one in reached if one["unseen"]]
        assert unseen == [], f"nobody sees that the focus is here: {unseen}"


@asynccontextmanager
async def visiting(browser: Browser, url: str, **options: Any) -> AsyncIterator[Visit]:
    """A window of somebody who was never there; `options` are those of a browser's context."""
    context = await browser.new_context(**options)
    try:
        page = await context.new_page()
        found = Visit(page, url)
        await page.add_init_script(_LISTEN)
        page.on("console", lambda said: said.type in {"error", "warning"} and found.complaints.append(said.text))
        page.on("pageerror", lambda error: found.complaints.append(str(error)))
        page.on("dialog", lambda dialog: found.complaints.append(f"a dialog: {dialog.message}"))
        page.on("request", lambda request: _demand_ours(found, request))
        yield found
    finally:
        await context.close()


def _demand_ours(visit: Visit, request: Request) -> None:
    if not request.url.startswith((visit.url + "/", "data:")):
        visit.complaints.append(f"asked elsewhere: {request.url}")


def _sentence(violation: dict[str, Any]) -> str:
    nodes = "; ".join(
        f"{node['html'][:160]} ({node['failureSummary'].splitlines()[-1].strip()})" for node in violation["nodes"][:3]
    )
    return f"{violation['id']}: {violation['help']}: {nodes}"


@cache
def _axe_source() -> str:
    return AXE.read_text()

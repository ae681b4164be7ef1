"""The console over real HTTP, without a browser: pages as what a reader sees, their links, their forms."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx
from aiohttp import web
from billing_api import Clock, billing_on, put_plan
from sqlalchemy.engine import URL

from sidecar.billing.api.server import application
from sidecar.billing.tokens import Tokens
from sidecar.billing.upkeep import Upkeep

GRADUATED = """
rate_plan:
  name: Graduated
  metrics:
    - id: resolutions
      name: AI resolutions
      aggregation: COUNT
      filter_conditions: [{field: outcome, operator: EQUALS, value: RESOLVED}]
  charges:
    - id: resolution
      name: AI resolutions
      metrics: [resolutions]
      model: GRADUATED
      included_free: 1
      tiers: [{up_to: 2, rate: 0.99}, {rate: 0.5}]
    - {id: base, name: Platform fee, metrics: [resolutions], model: FLAT, rate: 10}
  guardrails: {max_spend_cap: 20, max_spend_behavior: CAP}
"""
OPERATOR, VIEWER = "operator-token", "viewer-token"
_VOID = {"meta", "link", "input", "br", "img", "hr"}
_FOREIGN = {"rect", "line"}


@dataclass
class Form:
    """Where it goes, its fields with their values, and the values of its buttons and checkboxes by name."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    choices: dict[str, list[str]] = field(default_factory=dict)


class Page(HTMLParser):
    """One answer. Its tags must be closed in order: what was written into it cannot have broken out."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(convert_charrefs=True)
        self.answer, self.status = answer, answer.status_code
        self.links: list[str] = []
        self.forms: list[Form] = []
        self.tags: set[str] = set()
        self._open: list[str] = []
        self._texts: list[str] = []
        assert answer.headers["content-type"] == "text/html; charset=utf-8", answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        self.feed(answer.text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    @property
    def text(self) -> str:
        """What a reader sees, blanks joined."""
        return " ".join("".join(self._texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert not [name for name in given if name.startswith("on") or name == "style"], "the policy forbids these"
        self.tags.add(tag)
        if tag not in _VOID | _FOREIGN:
            self._open.append(tag)
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        if tag == "form":
            self.forms.append(Form(given.get("action") or "", given.get("method") or "get"))
        name, value = given.get("name"), given.get("value") or ""
        if self.forms and name and tag in {"input", "button"} and "form" in self._open:
            if tag == "button" or given.get("type") == "checkbox":
                self.forms[-1].choices.setdefault(name, []).append(value)
            else:
                self.forms[-1].fields[name] = value

    def handle_endtag(self, tag: str) -> None:
        if tag not in _FOREIGN:
            assert self._open, f"</{tag}> too many"
            assert self._open.pop() == tag, self.getpos()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self._texts.append(data)
        if self._open and self._open[-1] in {"td", "th", "p", "dd", "dt", "li", "h1", "h2", "a", "small", "span"}:
            self._texts.append(" ")

    def form(self, action: str) -> Form:
        """The form that posts to an address."""
        [found] = [one for one in self.forms if one.action == action and one.method == "post"]
        return found


@dataclass
class Console:
    """One visitor's browser, without its screen."""

    http: httpx.AsyncClient

    async def page(self, path: str, status: int = 200, **query: str) -> Page:
        answer = await self.http.get(httpx.URL(path).copy_merge_params(query) if query else path)
        assert answer.status_code == status, (path, answer.status_code, answer.text[-2000:])
        return Page(answer)

    async def send(self, form: Form, status: int = 200, **values: str | list[str]) -> Page:
        answer = await self.http.post(form.action, data={**form.fields, **values})
        assert answer.status_code == status, answer.text[-2000:]
        return Page(answer)

    async def log_in(self, token: str, name: str) -> None:
        answer = await self.http.post("/login", data={"token": token, "name": name, "next": "/"})
        assert answer.status_code == 303, answer.text

    async def crawl(self, *starts: str, most: int = 300) -> dict[str, Page]:
        """Every page that links lead to from some; none may be missing."""
        found: dict[str, Page] = {}
        waiting = list(starts)
        while waiting:
            path = waiting.pop()
            if path in found:
                continue
            assert len(found) < most, "a crawl without end"
            answer = await self.http.get(path)
            assert answer.status_code == 200, (path, answer.status_code, answer.text[-1000:])
            if answer.headers["content-type"].startswith("text/html"):
                found[path] = Page(answer)
                waiting += [link for link in _ours(found[path].links) if link not in found]
        return found


def _ours(links: list[str]) -> Iterator[str]:
    """Without other months: there is one before each of them."""
    for link in links:
        if (link.startswith("/") and "period=" not in link) or (link.startswith("/") and "period=2026-11" in link):
            yield link


@asynccontextmanager
async def console_on(
    url: URL, *, tokens: bool = False, help_desk: str | None = None, clock: Clock | None = None
) -> AsyncIterator[Console]:
    """The console as the process serves it; `http.billing` and `http.upkeep` are the service behind it."""
    given = Tokens(OPERATOR, VIEWER) if tokens else Tokens()
    async with billing_on(url, clock) as billing:
        runner = web.AppRunner(application(billing, given, help_desk), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with httpx.AsyncClient(base_url=base, timeout=30, trust_env=False) as client:
                client.billing, client.upkeep = billing, Upkeep(billing)
                yield Console(client)
        finally:
            await runner.cleanup()


async def post(console: Console, *events: dict) -> None:
    """Events that must all be taken."""
    receipt = await console.http.billing.post(list(events))
    assert (receipt.accepted, receipt.rejected) == (len(events), []), receipt


async def graduated(console: Console, customer: str = "customer-17") -> None:
    """The customer is on the plan GRADUATED."""
    await put_plan(console.http, "graduated", GRADUATED)
    answer = await console.http.put(f"/v1/customers/{customer}", json={"plan": "graduated", "seats": 3})
    assert answer.status_code == 200

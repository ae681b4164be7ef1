"""A ledger in which every text that somebody else chooses is chosen to break a page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from aiohttp import web
from billing_api import Clock, event, post, simple_plan
from console_server import ConsoleServer, console_server
from export_fake import SECRET
from export_targets import FAKES
from exporting import feed_until_idle

from sidecar.billing.exports.config import load_exports
from sidecar.billing.exports.service import Exports

TAG = "<img src=x onerror=alert(1)>"
SCRIPT = "</script><script>alert(2)</script>"
QUOTES = "\"'`><b onmouseover=alert(3)>{{ 7*7 }} {% raw %} ${1}"
RIGHT_TO_LEFT = "\u202eabc\u202d \u05e9\u05dc\u05d5\u05dd \u200f/../%2e%2e"
LONG = "long" * 60
# A place in a page's path → what stands there.
CUSTOMER, SESSION, CONVERSATION, PLAN = TAG, f"ses_{SCRIPT}", f"{QUOTES} {RIGHT_TO_LEFT}", "p-1"

EXPORTS = """\
exports:
- {name: hook, kind: webhook, url: URL, secret: {env: KEY}, meters: [{code: "<b>m</b>", metrics: [m]}]}
"""


class _Refusing(FAKES["webhook"]):
    """A target whose refusals are no words."""

    def answer(self, path: str, headers: dict[str, str], raw: bytes) -> web.Response:
        return web.Response(status=422, text=TAG + SCRIPT + RIGHT_TO_LEFT)


@asynccontextmanager
async def hostile(folder: Path) -> AsyncIterator[ConsoleServer]:
    clock = Clock()
    hook = _Refusing(clock)
    async with hook.listening(), console_server(folder, clock=clock) as server:
        file = EXPORTS.replace("URL", hook.url).encode()
        exports = Exports(server.billing.database, load_exports(file, "exports.yaml", {"KEY": SECRET}), clock)
        await exports.begin()
        server.billing.exports = exports
        plan = simple_plan().replace("name: p,", f"name: '{TAG}{SCRIPT}',").replace("id: m,", f"id: m, name: '{TAG}',")
        answer = await server.api.put(f"/v1/plans/{PLAN}", content=plan, headers={"Content-Type": "application/yaml"})
        assert answer.is_success, answer.text
        for customer in (TAG, LONG, RIGHT_TO_LEFT, QUOTES):
            facts = {"plan": PLAN, "seat_tier": TAG, "attributes": {TAG: SCRIPT, "long": LONG}}
            answer = await server.api.put(f"/v1/customers/{quote(customer, safe='')}", json=facts)
            assert answer.is_success, answer.text
        texts = (SCRIPT, TAG, QUOTES, RIGHT_TO_LEFT, LONG)
        number = 0
        for customer in (TAG, LONG, RIGHT_TO_LEFT, QUOTES, "unattributed"):
            for text in texts:
                number += 1
                await post(server.api, _event(number, customer, text))
        session = event(90, subject=CUSTOMER, data={"session_id": SESSION, "conversation": CONVERSATION, "reason": TAG})
        await post(server.api, session)
        for kind, reason in (("reverse", SCRIPT),):
            body = {"actor": TAG, "reason": reason + LONG}
            answer = await server.api.post(f"/v1/outcomes/out_90/{kind}", json=body)
            assert answer.is_success, answer.text
        await server.settle()
        await feed_until_idle(exports.senders)
        server.named = {
            "customers": CUSTOMER, "lines": "pricing", "sessions": SESSION, "plans": PLAN, "exports": "hook",
            "backtest": await server.backtest(PLAN, "2026-11"),
        }  # fmt: skip
        try:
            yield server
        finally:
            await exports.close()


def _event(number: int, customer: str, text: str) -> dict[str, object]:
    """States in turn; every free text is `text`."""
    escalated = {"state": "NOT_BILLABLE", "outcome": "ESCALATED_TO_HUMAN", "escalated_to_human": True}
    states = ({}, escalated, {"held": True}, {"shadow": True}, {"state": "INCONCLUSIVE", "outcome": "INCONCLUSIVE"})
    data = {
        "session_id": f"ses_{number}{text}"[:256], "conversation": text * 4, "reason": text, "models": [text],
        "attributes": {text: text}, "plan": {"name": text, "digest": text}, "tenant": TAG,
        "evidence": [{"at": text, "rule": text, "kind": text, "digest": text}],
        **states[number % len(states)],
    }  # fmt: skip
    return event(number, id=f"out_{number}{TAG}", subject=customer, source=f"sidecar/{TAG}", data=data)

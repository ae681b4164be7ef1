"""What couriers post to, wait by, and carry."""

from __future__ import annotations

import asyncio
import json

import orjson
from aiohttp import web


class Billing:
    """Records what is posted; answers from `script` (one function per request), then 200 to all."""

    def __init__(self):
        self.requests = []
        self.script = []
        self.taken = {}
        self.conflicts = 0
        self.url = ""

    async def handle(self, request):
        body = await request.read()
        document = orjson.loads(body)
        events = document if isinstance(document, list) else [document]
        self.requests.append((request.headers.copy(), body, [event["id"] for event in events]))
        answer = self.script.pop(0) if self.script else None
        if answer is not None:
            result = answer(events)
            return await result if asyncio.iscoroutine(result) else result
        return self.take(events)

    def take(self, events, rejected=()):
        for event in events:
            if event["id"] in {item["id"] for item in rejected}:
                continue
            raw = orjson.dumps(event, option=orjson.OPT_SORT_KEYS)
            self.conflicts += self.taken.setdefault(event["id"], raw) != raw
        return web.json_response({"accepted": len(events), "duplicates": 0, "rejected": list(rejected)})


class Pauses:
    """A clock that does not wait: remembers how long it was asked to."""

    def __init__(self):
        self.seconds = []

    async def __call__(self, seconds):
        self.seconds.append(seconds)
        await asyncio.sleep(0)


def snapshot(n, **fields):
    return {
        "v": 1,
        "session_id": f"ses_{n}",
        "tenant": "acme",
        "customer": f"cust-{n}",
        "revision": 0,
        "state": "RESOLVED",
        "outcome": "RESOLVED",
        "confirmation": "CONFIRMED",
        "time_ms": 1_795_000_000_000,
        "started_ms": 1_794_999_000_000,
        "ended_ms": 1_795_000_000_000,
        "plan": "fin",
        "plan_digest": "sha256:aa",
        "models": {},
        "evidence": {},
        "attributes": {},
        **fields,
    }


async def fill(store, count, **fields):
    for n in range(count):
        await store.redis.xadd(store.key("outbox"), {"kind": "outcome", "body": json.dumps(snapshot(n, **fields))})

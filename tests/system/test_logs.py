"""The log of a whole system, at debug: JSON lines with documented names, ids of sessions and outcomes, no content."""

import gzip
import json

import httpx
from harness import ledger, wait_for
from scraping import scrape, value
from vendors import first_of

from sidecar.logged import LINES
from sidecar.logs_reference import lines

CANARY = "canary-51c9"
PATIENCE = 60.0  # the observer has the lowest priority
SAID = f"{CANARY} my card is 4111"
HEADERS = {"authorization": f"Bearer {CANARY}", "x-note": SAID, "x-customer-id": "acme"}


def call(running, content, *, path="/v1/chat/completions", **headers):
    return httpx.post(running.url + path, content=content, headers=HEADERS | headers, timeout=PATIENCE)


def chat(conversation, text=SAID, **more):
    messages = [{"role": "system", "content": SAID}, {"role": "user", "content": text}]
    return json.dumps({"model": "gpt-4o", "messages": messages, "user": CANARY} | more).encode(), conversation


def broken(running):
    """What nobody can read, with the canary in it, at every door."""
    deep = b'{"messages":' + b"[" * 3000 + json.dumps(SAID).encode()
    kind = {"content-type": "application/json"}
    call(running, b'{"messages": "' + SAID.encode(), **kind)
    call(running, deep, **kind)
    call(running, b"not gzip " + SAID.encode(), **{"content-encoding": "gzip"})
    call(running, gzip.compress(chat("x")[0])[:-9], **{"content-encoding": "gzip"})
    call(running, json.dumps({"model": {"a": SAID}, "messages": SAID}).encode(), path=f"/{CANARY}?q={CANARY}", **kind)
    admin, client = running.admin, httpx.Client(timeout=PATIENCE)
    client.post(f"{admin}/v1/signals", content=b"{" + SAID.encode())
    client.post(f"{admin}/v1/signals", json={"id": SAID, "source": SAID, "outcome": "INCONCLUSIVE", "reason": SAID})
    client.post(f"{admin}/v1/webhooks/zendesk", content=SAID.encode(), headers={"x-note": SAID})
    client.get(f"{admin}/v1/sessions", params={"alias": f"conversation:{CANARY}"})
    client.request("BREW", f"{admin}/{CANARY}", headers=HEADERS)
    client.post(f"{running.billing_url()}/v1/outcomes", content=SAID.encode(), headers=kind | HEADERS)
    client.close()


def test_no_line_has_a_word_of_content_and_every_line_is_documented(sidecar):
    zendesk = first_of("zendesk")
    running = sidecar(LOG_LEVEL="debug", WEBHOOK_SECRET_ZENDESK=zendesk.secret).start()
    running.wait_up()
    for number in range(3):
        content, conversation = chat(f"c-{number}", stream=number == 1)
        call(running, content, **{"x-session-id": conversation}).raise_for_status()
    broken(running)
    wait_for("the sessions", lambda: all(running.session("conversation", f"c-{n}") for n in range(3)))
    for number in range(3):
        alias = {"kind": "conversation", "value": f"c-{number}"}
        body = {"id": f"s-{number}", "source": "crm", "alias": alias, "outcome": "RESOLVED", "reason": SAID}
        running.signal_taken(**body, attributes={"note": SAID})
    rows = wait_for("the outcomes", lambda: len(found := ledger(running.billing_url())) == 3 and found)
    seen = wait_for(
        "all of it", lambda: value(found := scrape(running.admin), "sidecar_observe_seconds_count") >= 8 and found
    )
    assert value(seen, "sidecar_events_total", event="json_broken") >= 1
    assert running.stop() == 0

    assert CANARY not in running.log()
    found = [json.loads(line) for line in running.log().splitlines()]
    documented = lines()
    for line in found:
        assert line["event"] in LINES, line
        assert line["level"] in documented[line["event"]].levels, line
        known = {"event", "message", "level", "timestamp", "exception", *documented[line["event"]].fields}
        assert "…" in known or line.keys() <= known, line
    delivered = {(line["outcome_id"], line["session_id"]) for line in found if line["event"] == "outcome_delivered"}
    assert delivered == {(row["id"], row["data"]["session_id"]) for row in rows}
    applied = {line["session_id"] for line in found if line["event"] == "fact_applied"}
    assert {session for _, session in delivered} <= applied

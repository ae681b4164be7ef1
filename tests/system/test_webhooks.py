"""Webhooks through a real `sidecar run`: the CRM tells what became of conversations that the proxy saw."""

import json
import re
import time

import httpx
from harness import ROOT, ledger, wait_for
from vendors import first_of, hubspot_event, intercom_event, zendesk_event


def say(url, conversation):
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
    sent = {"authorization": "Bearer x", "x-session-id": conversation, "x-customer-id": "acme"}
    return httpx.post(url + "/v1/chat/completions", json=body, headers=sent).raise_for_status()


def deliver(running, example, payload, *, uri=None, **more):
    body = json.dumps(payload).encode()
    headers = example.sign(example.secret, body, int(time.time()), uri or example.uri) | more

    def answer():
        found = httpx.post(f"{running.admin}/v1/webhooks/{example.source}", content=body, headers=headers)
        # What senders do: 503 says that the observer, at the lowest priority, had no time.
        return found if found.status_code != 503 else None

    return wait_for(f"{example.source}'s webhook to be taken", answer)


def counted(running):
    """Each source's results."""
    text = httpx.get(running.admin + "/metrics").raise_for_status().text
    lines = re.findall(r'sidecar_webhooks_total\{result="(\w+)",source="(\w+)"\} (\S+)', text)
    return {(source, result): float(value) for result, source, value in lines}


def test_what_the_crm_tells_decides(sidecar):
    zendesk, intercom, hubspot = (first_of(name) for name in ("zendesk", "intercom", "hubspot"))
    running = sidecar(
        ADMIN_TOKEN="for people",
        WEBHOOK_SECRET_ZENDESK=zendesk.secret,
        WEBHOOK_CONVERSATION_ZENDESK="payload.detail.external_id || payload.detail.id",
        WEBHOOK_SECRET_INTERCOM="the next one",
        WEBHOOK_SECRET_INTERCOM_PREVIOUS=intercom.secret,
        WEBHOOK_SECRET_HUBSPOT=hubspot.secret,
        WEBHOOK_BASE_URL="https://hooks.example.com",
    ).start()
    running.wait_up()
    for conversation in ("c-z", "c-i", "1246965"):
        say(running.url, conversation)

    assigned = zendesk_event("agent_assignment_changed", {"current": "8447388090496", "previous": None})
    assigned["detail"]["external_id"] = "c-z"
    for _ in range(3):
        assert deliver(running, zendesk, assigned).status_code == 200
    closed = deliver(running, intercom, intercom_event("conversation.admin.closed", {"id": "c-i"}))
    assert closed.status_code == 200
    assert deliver(running, hubspot, [hubspot_event("status", "CLOSED")]).status_code == 200
    assert deliver(running, hubspot, [{"subscriptionType": "contact.creation"}]).json()["unmapped"] == 1
    assert deliver(running, hubspot, [], uri="https://elsewhere.example.com/v1/webhooks/hubspot").status_code == 401
    assert deliver(running, first_of("front"), {}).status_code == 404
    wait_for("the token to be asked for", lambda: httpx.get(running.admin + "/v1/sessions").status_code == 401)

    billing = running.billing_url()
    rows = wait_for("three outcomes", lambda: len(found := ledger(billing)) >= 3 and found)
    told = {row["data"]["conversation"]: row["data"] for row in rows}
    assert {name: data["state"] for name, data in told.items()} == {
        "c-z": "NOT_BILLABLE",
        "c-i": "RESOLVED",
        "1246965": "RESOLVED",
    }
    assert told["c-i"]["reason"] == "Intercom conversation closed"
    [evidence] = told["c-i"]["evidence"]
    assert (evidence["kind"], evidence["rule"]) == ("webhook", "intercom_closed")
    counts = wait_for("the counters", lambda: counted(running))
    assert counts["zendesk", "accepted"] == 1
    assert counts["zendesk", "duplicate"] >= 2
    assert counts["hubspot", "forged"] >= 1


def test_a_new_outcome_type_is_one_line_of_the_plan(sidecar, tmp_path):
    plan = tmp_path / "compound.yaml"
    source = (ROOT / "examples" / "plans" / "compound.yaml").read_text()
    plan.write_text(source.replace("settle_minutes: 10", "settle_minutes: 0"))
    outreach = first_of("outreach")
    hubspot = first_of("hubspot")
    secrets = {"WEBHOOK_SECRET_OUTREACH": outreach.secret, "WEBHOOK_SECRET_HUBSPOT": hubspot.secret}
    running = sidecar(PLAN=plan, BILLING_PLAN=plan, **secrets).start()
    running.wait_up()
    # The URL that HubSpot signs is found out by the Host field, which the proxy leaves as it came.
    assert deliver(running, hubspot, [{}], Host="hooks.example.com").json()["unmapped"] == 1
    assert deliver(running, hubspot, [{}]).status_code == 401
    told = deliver(running, outreach, {"status": "done", "conversation_id": "c-1"})  # before its session
    assert (told.status_code, told.json()["unmapped"]) == (200, 0)
    say(running.url, "c-1")
    billing = running.billing_url()
    [row] = wait_for("the outcome", lambda: ledger(billing))
    assert (row["data"]["state"], row["data"]["outcome"]) == ("RESOLVED", "PROACTIVE_OUTREACH_RESOLVED")
    invoice = httpx.get(f"{billing}/v1/customers/acme/invoice", params={"period": row["time"][:7]}).json()
    assert {line["charge"]: line["quantity"] for line in invoice["lines"]}["resolutions_basic"] == 1

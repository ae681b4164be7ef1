"""Every metric of a running system is in the documented table and the other way round; no caller can grow a series."""

import httpx
from harness import wait_for
from scraping import MEASURES, measure_of, scrape, types, value
from vendors import first_of

EXPORTS = """
exports:
- name: warehouse
  kind: openmeter
  url: http://127.0.0.1:9
  secret: {file: SECRET}
  meters:
  - {code: resolved, metrics: [ai_resolution]}
"""
HOSTILE = [f"{word}-{number}" for word in ("x'\"}", "évil", "a" * 40) for number in range(5)]


def say(
    url,
    conversation,
    *,
    customer="acme",
    model="gpt-4o",
    stream=False,
    method="POST",
    path="/v1/chat/completions",
    **headers,
):
    body = {
        "model": model,
        "stream": stream,
        "messages": [{"role": "user", "content": f"{conversation}: where is my order?"}],
    }
    sent = {"authorization": "Bearer x", "x-session-id": conversation, "x-customer-id": customer} | headers
    encoded = {name: text.encode() for name, text in sent.items()}
    return httpx.request(method, url + path, json=body, headers=encoded)


def post_signals(running, conversations):
    for conversation in conversations:
        alias = {"kind": "conversation", "value": conversation}
        running.signal_taken(id=f"s-{conversation}", source=conversation, alias=alias, outcome="RESOLVED")


def test_the_table_is_what_a_running_system_shows_and_hostile_traffic_adds_no_series(sidecar, tmp_path):
    (tmp_path / "secret").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    (tmp_path / "exports.yaml").write_text(EXPORTS.replace("SECRET", str(tmp_path / "secret")))
    zendesk = first_of("zendesk")
    running = sidecar(WEBHOOK_SECRET_ZENDESK=zendesk.secret, BILLING_EXPORTS=tmp_path / "exports.yaml").start()
    running.wait_up()
    say(running.url, "c-1", stream=True).raise_for_status()
    wait_for("the session", lambda: running.session("conversation", "c-1"))
    post_signals(running, ["c-1"])
    httpx.post(f"{running.admin}/v1/webhooks/nobody", json={})
    urls = {"sidecar": running.admin, "billing": running.billing_url()}

    def everything():
        seen = {where: scrape(url) for where, url in urls.items()}
        names = {measure.name for found in seen.values() for name, _ in found if (measure := measure_of(name))}
        resolved = (
            value(seen["sidecar"], "sidecar_sessions", tenant="default", state="RESOLVED") == 1
        )  # as of the last heartbeat
        return seen if resolved and names == MEASURES.keys() else None

    before = wait_for("every documented metric", everything)
    for where, found in before.items():
        undocumented = {name for name, _ in found if measure_of(name) is None}
        assert undocumented == set(), where
        for name, kind in types(urls[where]).items():
            assert MEASURES[name].kind == kind, name

    samples = before["sidecar"]
    route = running.env["SIDECAR_LISTEN"]
    assert value(samples, "sidecar_requests_total") == 1
    assert value(samples, "sidecar_exchanges_total", route=route, **{"class": "2xx"}) == 1
    assert value(samples, "sidecar_first_byte_seconds_count", route=route) == 1
    assert value(samples, "sidecar_added_latency_seconds_count") == 1
    assert value(samples, "sidecar_observe_seconds_count") == 1
    assert value(samples, "sidecar_sessions", tenant="default", state="RESOLVED") == 1
    assert value(samples, "sidecar_queue_capacity_bytes") >= 8 << 20
    assert value(samples, "sidecar_journal_bytes") > 0

    for number, name in enumerate(HOSTILE):
        say(running.url, name, customer=name, model=name, method=("POST", "PUT", "BREW")[number % 3], path=f"/{number}")
        say(running.url, f"h-{number}", customer=name, model=name, **{f"x-{number}": name})
        httpx.post(f"{running.admin}/v1/webhooks/source-{number}", content=name.encode())
    post_signals(running, [f"h-{number}" for number in range(len(HOSTILE))])

    def took_it_in():
        found = scrape(running.admin)
        return (
            found if value(found, "sidecar_sessions", tenant="default", state="RESOLVED") == 1 + len(HOSTILE) else None
        )

    after = {"sidecar": wait_for("the hostile traffic", took_it_in), "billing": scrape(urls["billing"])}
    bounded = {
        "route": {route},
        "source": {"zendesk", "unknown"},
        "tenant": {"default"},
        "target": {"warehouse"},
        "meter": {"resolved"},
        "name": {dict(labels)["name"] for name, labels in samples if name == "sidecar_plan_info"},
        "digest": {dict(labels)["digest"] for name, labels in samples if name == "sidecar_plan_info"},
    }
    for (name, labels), _ in (item for found in after.values() for item in found.items()):
        known = {label.name: label.values or bounded[label.name] for label in measure_of(name).labels}
        for label, said in labels:
            assert label == "le" or said in known[label], f"{name}{dict(labels)}"

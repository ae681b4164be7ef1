"""From a verified webhook to signals: what events mean, what they are called, and what is not kept of them."""

import json

import pytest
from vendors import EXAMPLES, first_of, hubspot_event, intercom_event, told, zendesk_event

from sidecar.identity import key
from sidecar.intake.signal import from_json
from sidecar.intake.verify import Delivery
from sidecar.intake.webhooks import EVENTS_MAX, MalformedError, Placement, endpoints, read_webhook
from sidecar.policy.loading import builtin_plan, load_plan

NOW_S = 1_795_000_000
PLACEMENT = Placement("journal", "acme", NOW_S * 1000, b"k")
EACH = pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: f"{one.source}-{one.sign.__name__}-{one.event}")


def plan(signals):
    return load_plan(f"rate_plan:\n  name: p\n  signals:\n{signals}".encode(), "p")


def read(example, *, body=None, plan=None, conversation=None, headers=None):
    conversations = {} if conversation is None else {example.source: conversation}
    endpoint = endpoints({example.source: [example.secret]}, conversations)[example.source]
    body = example.body if body is None else body
    signed = example.headers(NOW_S, body) | (headers or {})
    delivery = Delivery("POST", example.uri, {name.lower(): value for name, value in signed.items()}, body)
    scheme = endpoint.check(delivery, NOW_S * 1000)
    return read_webhook(endpoint, scheme, delivery, plan or builtin_plan(), PLACEMENT)


def payload(example, value, **more):
    return read(example, body=json.dumps(value).encode(), **more)


@EACH
def test_the_built_in_mapping(example):
    reading = read(example)
    assert reading.events == 1
    if example.event is None:
        assert (reading.unmapped, reading.signals) == (1, ())
        return
    [found] = reading.signals
    signal = found.numbered(7)
    assert (signal.effect.event, signal.alias) == (example.event, key("acme", "conversation", example.conversation))
    assert (signal.source, signal.id, signal.sequence, signal.at_ms) == (example.source, found.id, 7, NOW_S * 1000)
    assert signal.effect.kind == "webhook"
    assert signal.effect.digest.startswith("hmac-sha256:")
    assert from_json(found.row(7)) == signal


def test_what_is_assumed_by_the_vendor_is_assumed_here():
    confirmations = {
        (example.payload["data"]["item"].get("ai_agent") or {}).get("resolution_state"): found.numbered(1).effect
        for example in EXAMPLES
        if example.source == "intercom"
        for found in read(example).signals
    }
    assert confirmations["assumed_resolution"].confirmation == "ASSUMED"
    assert confirmations["confirmed_resolution"].confirmation == "CONFIRMED"


@EACH
def test_nothing_of_the_payload_is_kept_but_ids_and_digests(example):
    marked = json.loads(example.body)
    (marked[0] if isinstance(marked, list) else marked)["text"] = "the customer's secret words"
    for found in payload(example, marked).signals:
        assert b"secret words" not in found.row(1)


@EACH
def test_a_retry_has_the_same_name_and_another_event_has_not(example):
    names = [found.id for found in read(example).signals]
    later = example.headers(NOW_S + 60)
    assert [found.id for found in read(example, headers={"X-Retry-Count": "1"}).signals] == names
    assert later  # signed anew with each attempt, and yet the same event
    marked = json.loads(example.body)
    if example.source in {"chatwoot", "freshchat"}:  # these name no event: the bytes do
        marked["more"] = 1
        assert [found.id for found in payload(example, marked).signals] != names or not names


def test_names_of_events():
    assert [found.id for found in read(first_of("zendesk")).signals] == ["c6d7e8f9-0a1b-2c3d-4e5f-6a7b8c9d0e1f"]
    assert [found.id for found in read(first_of("hubspot")).signals] == ["33:25:3816279340:1246965:1462216307945"]
    assert [found.id for found in read(first_of("outreach")).signals] == ["msg_1"]
    retried = [hubspot_event("status", "CLOSED", attempt=3)]
    assert payload(first_of("hubspot"), retried).signals[0].id == "33:25:3816279340:1246965:1462216307945"


def test_an_unsigned_header_cannot_rename_an_event():
    for name in ("X-Chatwoot-Delivery", "webhook-id", "svix-id"):
        chatwoot = first_of("chatwoot")
        assert read(chatwoot, headers={name: "other"}).signals[0].id == read(chatwoot).signals[0].id
    svix = first_of("dialler")
    assert read(svix, headers={"webhook-id": "other"}).signals[0].id == "msg_1"


@pytest.mark.parametrize("identifier", [None, "", "x" * 300, "a\nb", {"no": "id"}, True])
def test_an_event_without_a_usable_name_is_named_by_its_bytes(identifier):
    reading = payload(first_of("intercom"), intercom_event("conversation.admin.closed", {}, identifier))
    assert reading.signals[0].id.startswith("hmac-sha256:")
    assert b"xxx" not in reading.signals[0].row(1)


def test_the_id_in_a_body_that_a_trigger_s_author_wrote_is_no_name():
    first, second = (
        payload(first_of("zendesk"), {"id": "5158", "outcome": outcome, "conversation": "c-42"})
        for outcome in ("RESOLVED", "UNRESOLVED")
    )
    assert first.signals[0].id != second.signals[0].id


def test_each_event_of_a_batch_is_its_own_signal():
    events = [
        hubspot_event("status", "CLOSED", number=1, thread=7),
        hubspot_event("assignedTo", "A-1", number=2, thread=8),
        hubspot_event("isArchived", "true", number=3, thread=9),
        {"no": "event"},
        "not even an object",
    ]
    reading = payload(first_of("hubspot"), events)
    signals = [found.numbered(1) for found in reading.signals]
    assert [(one.effect.event, one.alias) for one in signals] == [
        ("resolve", key("acme", "conversation", "7")),
        ("escalate", key("acme", "conversation", "8")),
    ]
    assert (reading.events, reading.unmapped) == (5, 3)
    assert len({one.id for one in signals}) == 2
    assert payload(first_of("hubspot"), []).events == 0


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"outcome=RESOLVED", 400, "not JSON"),
        (b'"RESOLVED"', 400, "an object is needed"),
        (b"\xff{}", 400, "not JSON"),
        (b"[" * 5000 + b"]" * 5000, 400, "not JSON"),
        (json.dumps([{}] * (EVENTS_MAX + 1)).encode(), 413, "events in one request"),
    ],
    ids=range(7),
)
def test_what_is_no_webhook_is_told_why(body, status, says):
    with pytest.raises(MalformedError, match=says) as caught:
        read(first_of("hubspot"), body=body)
    assert caught.value.status == status


def test_a_list_from_a_sender_who_sends_no_batches_is_one_event():
    assert payload(first_of("intercom"), [1, 2]).events == 1


def test_which_field_names_the_conversation_can_be_said():
    event = zendesk_event("status_changed", {"current": "SOLVED", "previous": "OPEN"})
    event["detail"]["external_id"] = "c-77"
    either = "payload.detail.external_id || payload.detail.id"
    [found] = payload(first_of("zendesk"), event, conversation=either).signals
    assert found.numbered(1).alias == key("acme", "conversation", "c-77")
    event["detail"]["external_id"] = None
    [found] = payload(first_of("zendesk"), event, conversation=either).signals
    assert found.numbered(1).alias == key("acme", "conversation", "5158")
    [found] = payload(
        first_of("zendesk"), event, conversation='headers."x-conversation"', headers={"X-Conversation": "c-1"}
    ).signals
    assert found.numbered(1).alias == key("acme", "conversation", "c-1")


def test_the_proactive_outcome_is_one_line_of_the_plan():
    loaded = plan(
        "    - {id: proactive, on: webhook, conditions: [{field: payload.status, operator: EQUALS, value: done}],"
        " alias: {value: payload.conversation_id}, set: {outcome: PROACTIVE_OUTREACH_RESOLVED}}\n"
    )
    [found] = payload(first_of("outreach"), {"status": "done", "conversation_id": "c-9"}, plan=loaded).signals
    effect = found.numbered(1).effect
    assert (effect.event, effect.outcome, effect.rule) == ("resolve", "PROACTIVE_OUTREACH_RESOLVED", "proactive")


def test_a_plan_with_signals_uses_its_own_alone():
    assert read(first_of("zendesk"), plan=plan("    []\n")).unmapped == 1


def test_every_rule_that_holds_has_its_effect_and_the_first_bears_the_event_s_name():
    loaded = plan(
        "    - {id: a, on: webhook, alias: {value: payload.conversation}, set: {outcome: RESOLVED}}\n"
        "    - {id: b, on: webhook, alias: {value: conversation}, set: {customer: payload.customer,"
        " attributes: {amount: payload.amount, vip: payload.vip, gone: payload.nothing, tier: gold}}}\n"
    )
    body = told("RESOLVED", customer="acme", amount=12.5, vip=True)
    first, second = payload(first_of("outreach"), body, plan=loaded).signals
    assert (first.id, second.id) == ("msg_1", "msg_1#b")
    effect = second.numbered(1).effect
    assert (effect.event, effect.customer) == (None, "acme")
    assert effect.attributes == {"amount": "12.5", "vip": "true", "tier": "gold"}


def test_the_customer_may_be_told():
    effect = payload(first_of("salesforce"), told("RESOLVED", customer="acme")).signals[0].numbered(1).effect
    assert effect.customer == "acme"
    assert payload(first_of("salesforce"), told("RESOLVED")).signals[0].numbered(1).effect.customer is None


def test_what_is_wrong_with_the_settings_is_named_at_once():
    with pytest.raises(ValueError, match="SECRET_OUTREACH") as caught:
        endpoints({"outreach": ["whsec_!"], "freshchat": ["x"], "front": ["x"]}, {"front": "]["})
    assert [line.partition(":")[0] for line in str(caught.value).split("\n")] == [
        "SIDECAR_WEBHOOK_SECRET_OUTREACH",
        "SIDECAR_WEBHOOK_SECRET_FRESHCHAT",
        "SIDECAR_WEBHOOK_CONVERSATION_FRONT",
    ]


def test_secrets_are_not_shown():
    assert "hush" not in repr(endpoints({"zendesk": ["hush"]}, {}))


@EACH
def test_rules_see_no_credentials(example):
    endpoint = endpoints({example.source: [example.secret]}, {})[example.source]
    headers = {name.lower(): value for name, value in example.headers(NOW_S).items()} | {"cookie": "x", "x-more": "1"}
    shown = endpoint.facts({}, headers)["headers"]
    assert shown["x-more"] == "1"
    assert not {"cookie", "authorization", example.signature.lower()} & shown.keys()

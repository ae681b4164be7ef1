"""What each vendor is sent, byte for byte, and what its answers mean; `test_export_sdks` sets it beside theirs."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from sidecar.billing.exports.sender import judged
from sidecar.billing.exports.target import Answer, Endpoint, Item, Sent
from sidecar.billing.exports.targets import TARGETS

AT_US = 1_795_341_600_000_000
TIME = "2026-11-22T10:00:00Z"
ENDPOINT = Endpoint("https://x", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


def item(kind: str, **changes: Any) -> Item:
    values = {
        "id": "exp_1", "act": "usage", "code": "m", "field": TARGETS[kind].field, "customer": "c",
        "quantity": Decimal("2.50"), "at_us": AT_US, "outcome_id": "out_1", "meter": "m",
    } | changes  # fmt: skip
    return Item(**values)


def sent(kind: str, number: int = 1) -> list[Sent]:
    return [Sent(f"exp_{n}", "usage", TARGETS[kind].write(item(kind, id=f"exp_{n}"))) for n in range(number)]


WRITTEN = {
    "openmeter": {
        "specversion": "1.0", "id": "exp_1", "source": "outcome-sidecar", "type": "m", "subject": "c", "time": TIME,
        "datacontenttype": "application/json", "data": {"quantity": 2.5, "outcome": "out_1"},
    },
    "stripe_v2": {
        "event_name": "m", "identifier": "exp_1", "timestamp": TIME,
        "payload": {"value": "2.50", "stripe_customer_id": "c"},
    },
    "lago": {
        "transaction_id": "exp_1", "external_subscription_id": "c", "code": "m", "timestamp": AT_US // 1_000_000,
        "properties": {"quantity": 2.5, "outcome": "out_1"},
    },
    "orb": {
        "event_name": "m", "idempotency_key": "exp_1", "external_customer_id": "c", "timestamp": TIME,
        "properties": {"quantity": 2.5, "outcome": "out_1"},
    },
    "metronome": {
        "transaction_id": "exp_1", "customer_id": "c", "event_type": "m", "timestamp": TIME,
        "properties": {"quantity": "2.50", "outcome": "out_1"},
    },
    "flexprice": {
        "event_id": "exp_1", "event_name": "m", "external_customer_id": "c", "timestamp": TIME,
        "properties": {"quantity": 2.5, "outcome": "out_1"},
    },
    "polar": {
        "name": "m", "external_customer_id": "c", "external_id": "exp_1", "timestamp": TIME,
        "metadata": {"quantity": 2.5, "outcome": "out_1"},
    },
    "webhook": {
        "type": "usage.recorded", "timestamp": TIME,
        "data": {"id": "exp_1", "meter": "m", "customer": "c", "quantity": 2.5, "outcome": "out_1"},
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(WRITTEN))
def test_an_entry_as_it_is_written(kind: str) -> None:
    assert json.loads(TARGETS[kind].write(item(kind))) == WRITTEN[kind]


def test_stripe_forms() -> None:
    assert TARGETS["stripe_v1"].write(item("stripe_v1")) == (
        "event_name=m&identifier=exp_1&payload%5Bvalue%5D=2.50&payload%5Bstripe_customer_id%5D=c&timestamp=1795341600"
    )
    cancel = TARGETS["stripe_v1"].write(item("stripe_v1", act="cancel", cancels="exp_0"))
    assert cancel == "event_name=m&type=cancel&cancel%5Bidentifier%5D=exp_0"


PATHS = {
    "openmeter": ("/api/v1/events", "/api/v1/events"),
    "lago": ("/api/v1/events", "/api/v1/events/batch"),
    "orb": ("/ingest", "/ingest"),
    "metronome": ("/v1/ingest", "/v1/ingest"),
    "flexprice": ("/v1/events", "/v1/events/bulk"),
    "polar": ("/v1/events/ingest", "/v1/events/ingest"),
}


@pytest.mark.parametrize("kind", sorted(PATHS))
def test_one_and_several_hold_the_same_bytes_of_each(kind: str) -> None:
    for number, path in zip((1, 3), PATHS[kind], strict=True):
        entries = sent(kind, number)
        request = TARGETS[kind].request(ENDPOINT, entries, AT_US)
        assert request.path == path
        assert all(entry.body.encode() in request.content for entry in entries)
        json.loads(request.content)


def results(kind: str, status: int, body: Any = None, number: int = 1, **headers: str) -> list[str]:
    content = b"" if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return [one.result for one in TARGETS[kind].judge(Answer(status, named, content), sent(kind, number))]


@pytest.mark.parametrize("kind", sorted(TARGETS))
def test_what_statuses_mean_everywhere(kind: str) -> None:
    for status in (301, 401, 403, 404, 408, 409, 425, 429, 500, 502, 503, 599):
        assert results(kind, status) == ["retry"], status
    assert results(kind, 400) == ["refused"]
    if TARGETS[kind].traits.batch_max > 1:
        assert results(kind, 400, number=2) == ["alone", "alone"]


def test_what_vendors_say_of_single_entries() -> None:
    duplicate = {"error": {"code": "duplicate_meter_event"}}
    assert results("stripe_v1", 400, duplicate, stripe_should_retry="false") == ["duplicate"]
    assert results("stripe_v2", 400, {"error": {"code": "other"}}, stripe_should_retry="true") == ["retry"]
    words = {"error": {"type": "invalid_request_error", "message": "An event already exists with identifier exp_0."}}
    assert results("stripe_v1", 400, words, stripe_should_retry="false") == ["duplicate"]
    words["error"]["message"] = "An event already exists with identifier exp_9."
    assert results("stripe_v1", 400, words, stripe_should_retry="false") == ["refused"]
    exists = {"transaction_id": ["value_already_exist"]}
    details = {"0": exists, "2": {"code": ["not_found"]}}
    assert results("lago", 422, {"error_details": details}, 3) == ["duplicate", "again", "refused"]
    assert results("lago", 422, {"error_details": exists}) == ["duplicate"]
    assert results("lago", 422, {"error_details": {"7": exists}}, 2) == ["alone", "alone"]
    failed = {"validation_failed": [{"idempotency_key": "exp_1", "validation_errors": ["x"]}]}
    assert results("orb", 200, failed, 2) == ["taken", "refused"]
    assert results("orb", 400, failed, 2) == ["again", "refused"]
    assert results("polar", 200, {"inserted": 1, "duplicates": 1}, 2) == ["taken", "taken"]
    assert results("polar", 200, {"inserted": 1, "duplicates": 0}, 2) == ["retry", "retry"]
    assert results("polar", 422, {"detail": [{"loc": ["body", "events", 1], "msg": "x"}]}, 2) == ["again", "refused"]


@pytest.mark.parametrize("kind", sorted(TARGETS))
@pytest.mark.parametrize("body", [None, [], 1, "x", {"error": 1}, {"error_details": [1]}, {"validation_failed": 1}])
def test_answers_out_of_shape_are_judged_by_their_status(kind: str, body: Any) -> None:
    for status in (200, 400, 422, 500):
        expected = {200: "retry" if kind in {"polar", "orb"} else "taken", 500: "retry"}.get(status, "refused")
        assert results(kind, status, body) == [expected]


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("orb", 200, {"validation_failed": [{"idempotency_key": ["exp_0"]}]}),
        ("polar", 422, {"detail": [{"loc": None}]}),
        ("polar", 422, {"detail": [{"loc": 7}]}),
        ("lago", 422, {"error_details": {"\u00b2": {}}}),
        ("stripe_v1", 400, {"error": {"code": ["x"]}}),
    ],
)
def test_an_answer_that_makes_no_sense_is_an_answer_all_the_same(kind: str, status: int, body: Any) -> None:
    content = json.dumps(body).encode()
    verdicts = judged(TARGETS[kind], Answer(status, {}, content), [Sent("exp_0", "usage", "{}")] * 2)
    assert len(verdicts) == 2
    assert {verdict.result for verdict in verdicts} <= {"retry", "alone"}


def test_a_key_stays_until_its_answer_is_saved() -> None:
    """At Stripe v1 alone; v2 does the work again where it failed."""

    def spent(kind: str, status: int, **headers: str) -> bool:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        [verdict] = TARGETS[kind].judge(Answer(status, named, b"{}"), sent(kind))
        return verdict.key_spent

    assert [status for status in (200, 400, 401, 403, 409, 429, 500, 502, 503) if spent("stripe_v1", status)] == [
        400, 500, 502, 503
    ]  # fmt: skip
    assert spent("stripe_v1", 400, stripe_should_retry="true")
    assert not any(spent("stripe_v2", status) for status in (400, 409, 500, 503))
    keys = [
        TARGETS[kind].request(ENDPOINT, [Sent("exp_0", "usage", "", number)], AT_US).headers["idempotency-key"]
        for kind in ("stripe_v1", "stripe_v2")
        for number in (0, 2)
    ]
    assert keys == ["exp_0", "exp_0.2"] * 2


@pytest.mark.parametrize("kind", ["stripe_v1", "stripe_v2"])
@pytest.mark.parametrize(
    ("message", "result"),
    [
        ("This event was already cancelled.", "duplicate"),
        ("Meter event exp_0 has already been canceled", "duplicate"),
        ("You can only cancel events within 24 hours.", "refused"),
        ("An event already exists with identifier exp_1", "refused"),
    ],
)
def test_what_is_cancelled_already_is_done(kind: str, message: str, result: str) -> None:
    content = json.dumps({"error": {"message": message}}).encode()
    cancel = Sent("exp_1", "cancel", "")
    assert [one.result for one in TARGETS[kind].judge(Answer(400, {}, content), [cancel])] == [result]

"""What each answer of the billing API means."""

import pytest

from sidecar.delivery.answers import judge, retry_after_seconds

IDS = ["a", "b"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"not json", b"[]", b'{"rejected": "x"}', b'{"rejected": [3]}', b'{"rejected": [{"id": ["a"]}]}'],
)
@pytest.mark.parametrize("status", [200, 202, 204])
def test_2xx_without_the_id_under_rejected_is_delivered(status, body):
    verdict = judge(status, body, IDS)
    assert (verdict.again, verdict.whole, verdict.rejected) == (False, False, {})


def test_rejected_names_its_events_alone():
    body = b'{"rejected": [{"id": "b", "reason": "conflict"}, {"id": "other", "reason": "?"}]}'
    assert judge(200, body, IDS).rejected == {"b": "conflict"}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 422])
def test_other_4xx_refuse_one_and_split_a_batch(status):
    one = judge(status, b"why", ["a"])
    assert list(one.rejected) == ["a"]
    assert str(status) in one.rejected["a"]
    assert "why" in one.rejected["a"]
    many = judge(status, b"", IDS)
    assert many.whole
    assert not many.rejected


@pytest.mark.parametrize("status", [100, 301, 307, 408, 425, 429, 500, 502, 503, 504, 599])
def test_the_rest_is_sent_again(status):
    verdict = judge(status, b"", IDS, retry_after="12")
    assert verdict.again
    assert verdict.retry_after_seconds == 12


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("999999", 3600.0),
        ("-1", None),
        ("soon", None),
        ("Wed, 21 Oct 99999999999999999999 07:28:00 GMT", None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after_seconds(value, 10.0) == seconds

"""Errors of the two APIs become sentences that say what to change."""

import json

import httpx
import pytest

from sidecar.cli.api import Api, AwayError, NotFoundError
from sidecar.cli.grammar import CommandError


def asked(handler):
    client = httpx.Client(base_url="http://there", transport=httpx.MockTransport(handler))
    return Api("billing API", client, "SIDECAR_BILLING_TOKEN", "--billing")


def refusal(status, body, kind="application/problem+json"):
    text = body if isinstance(body, str) else json.dumps(body)
    with (
        pytest.raises(CommandError) as raised,
        asked(lambda _: httpx.Response(status, text=text, headers={"Content-Type": kind})) as api,
    ):
        api.get("/v1/x")
    return raised.value


@pytest.mark.parametrize(
    ("status", "body", "lines"),
    [
        (422, {"detail": "no", "errors": [{"field": "reason", "message": "too long"}]}, ("no", "  reason: too long")),
        (422, {"detail": "no", "errors": [{"line": 3, "message": "bad"}, "odd"]}, ("no", "  line 3: bad", "  odd")),
        (400, {"detail": "period: write a month"}, ("period: write a month",)),
        (502, "<html>\nBad Gateway", ("the billing API at http://there answers 502 Bad Gateway: <html>",)),
        (500, "[]", ("the billing API at http://there answers 500 Internal Server Error: []",)),
    ],
)
def test_problems_are_told_part_by_part(status, body, lines):
    assert refusal(status, body).lines == lines


def test_what_is_missing_or_away_can_be_told_apart():
    assert isinstance(refusal(404, {"detail": "no such"}), NotFoundError)
    away = refusal(503, {"error": {"message": "the observer does not answer"}}, "application/json")
    assert isinstance(away, AwayError)
    assert away.lines == ("the observer does not answer",)
    assert asked(lambda _: httpx.Response(404, json={"detail": "x"})).get_or("/v1/x", 7) == 7


def test_a_refused_token_names_the_variable():
    assert "give the right one in SIDECAR_BILLING_TOKEN" in refusal(401, {"detail": "no"}).lines[0]


def test_a_right_token_that_may_not_do_it_is_not_called_wrong():
    detail = "a viewer's token only reads: send an operator's"
    assert refusal(403, {"detail": detail}).lines == (detail,)
    assert refusal(403, "<html>", "text/html").lines == (
        "the billing API at http://there answers 403 Forbidden: <html>",
    )


def test_something_else_that_answers_there_is_not_taken_for_the_api():
    page = asked(lambda _: httpx.Response(200, text="<html>", headers={"Content-Type": "text/html"}))
    with pytest.raises(CommandError, match="not as a billing API does: check --billing"):
        page.get("/v1/x")


def test_silence_says_what_to_do():
    def nobody(_):
        raise httpx.ConnectError("refused")

    with pytest.raises(CommandError) as raised:
        asked(nobody).get("/v1/x")
    assert raised.value.lines == (
        "the billing API at http://there does not answer: refused",
        "start it, or name another with --billing",
    )

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.observer.exchange import Exchange
from sidecar.observer.locators import LOCATORS_MAX, Found, parse_locators
from sidecar.observer.reader import RawExchange
from sidecar.wire.records import EndFlag

CLAIMS = base64.urlsafe_b64encode(b'{"sub": "u-1", "org": {"id": 77}, "https://x/y": "z", "a.b": "dot"}').decode()


@pytest.fixture
def exchange(wire) -> Exchange:
    headers = {
        "X-Customer-Id": " cust-1 ",
        "Cookie": 'theme=dark; sid="s%3A1"; empty=',
        "Baggage": "user.tier=pro;ttl=1, customer.id = c%20%C3%A9 ,session.id=se-1",
        "Authorization": f"Bearer e30.{CLAIMS.rstrip('=')}.sig",
    }
    body = {
        "metadata": {"customer_id": 42, "flag": True, "ratio": 0.5, "list": ["x"], "none": None},
        "messages": [{"role": "user", "name": "n;1"}, {"role": "user", "name": "n2"}],
    }
    request = wire.post("/api/conversations/c%2042/messages?user=u%2B1&user=u2", body, headers)
    response = wire.ok({"conversation": {"id": "conv-9"}}, {"X-Trace": "t-1"})
    return wire.exchange(request, response, listener_name="127.0.0.1:8081")


@pytest.mark.parametrize(
    ("locator", "value"),
    [
        ("header:x-customer-id", "cust-1"),
        ("header:X-CUSTOMER-ID", "cust-1"),
        ("header:x-other", None),
        ("query:user", "u+1"),
        ("query:other", None),
        ("cookie:sid", "s:1"),
        ("cookie:empty", None),
        ("cookie:other", None),
        ("baggage:customer.id", "c é"),
        ("baggage:user.tier", "pro"),
        ("baggage:other", None),
        ("jwt:sub", "u-1"),
        ("jwt:org.id", "77"),
        ("jwt:https://x/y", "z"),
        ("jwt:a.b", "dot"),
        ("jwt:org", None),
        ("jwt:missing", None),
        ("path:/conversations/{}/messages", "c 42"),
        ("path:/conversations/{}", "c 42"),
        ("path:/{}/conversations", "api"),
        ("path:/threads/{}", None),
        ("path:/a/b/c/d/e/{}", None),
        ("body:metadata.customer_id", "42"),
        ("body:metadata.flag", None),
        ("body:metadata.ratio", None),
        ("body:metadata.list", None),
        ("body:metadata", None),
        ("body:metadata.none", None),
        ("body:metadata.list[0]", "x"),
        ("body:messages[-1].name", "n2"),
        ("body:messages[?name=='n;1'].role | [0]", "user"),
        ("body:length(metadata.customer_id)", None),  # a type error is nothing found
        ("body:messages.name", None),
        ("response.header:x-trace", "t-1"),
        ("response.body:conversation.id", "conv-9"),
        ("response.body:error", None),
        ("listener:127.0.0.1:8081", "127.0.0.1:8081"),
        ("listener:127.0.0.1:8081=acme", "acme"),
        ("listener:127.0.0.1:8080=acme", None),
        ("literal:O'Brien & Sons", "O'Brien & Sons"),
    ],
)
def test_every_kind(exchange: Exchange, locator: str, value: str | None) -> None:
    assert parse_locators(locator).find(exchange) == Found(value, 0)


def test_they_are_tried_in_order(exchange: Exchange) -> None:
    line = "header:x-missing; body:metadata.customer_id ;header:x-customer-id;;"
    assert parse_locators(line).find(exchange) == Found("42")
    assert parse_locators(line).find_all(exchange) == (["42", "cust-1"], 0)


def test_quotes_keep_a_semicolon_in_an_expression(exchange: Exchange) -> None:
    line = "body:messages[?name=='n;1'].name | [0];literal:it's;header:x-customer-id"
    assert parse_locators(line).find_all(exchange) == (["n;1", "it's", "cust-1"], 0)


def test_each_value_once(exchange: Exchange) -> None:
    assert parse_locators("literal:a;literal:b;literal:a").find_all(exchange) == (["a", "b"], 0)


def test_none_find_nothing(exchange: Exchange) -> None:
    assert parse_locators("").find(exchange) == Found(None)
    assert parse_locators(" ; ").find(exchange) == Found(None)


@pytest.mark.parametrize("value", ["x" * 257, "é" * 129, "a\x00b", "a\nb", "a\u0085b", "\x7f"])
def test_an_unusable_value_is_passed_over_and_counted(wire, value: str) -> None:
    exchange = wire.exchange(wire.post("/", {"id": value, "other": "fine"}))
    assert parse_locators("body:id").find(exchange) == Found(None, 1)
    assert parse_locators("body:id;body:other").find(exchange) == Found("fine", 1)
    assert parse_locators("body:id;body:other").find_all(exchange) == (["fine"], 1)


@pytest.mark.parametrize("value", ["x" * 256, "é" * 128, "a b", "名前", "a/b:c=d"])
def test_a_usable_value(wire, value: str) -> None:
    assert parse_locators("body:id").find(wire.exchange(wire.post("/", {"id": value}))) == Found(value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x-customer-id", "'x-customer-id' is no locator: write one of header:…, query:…, cookie:…"),
        ("heder:x", "'heder:x' is no locator"),
        ("header:x;HEADER:y", "'HEADER:y' is no locator"),
        ("header:", "'header:' says nothing after the colon: the name of a header is needed"),
        ("header:two words", "'header:two words': the name of a header has"),
        ("cookie:a=b", "'cookie:a=b': the name of a cookie has"),
        ("path:conversations/{}", "'path:conversations/{}': a path starts with /"),
        ("path:/conversations", "'path:/conversations': a path starts with /"),
        ("path:/{}/{}", "'path:/{}/{}': a path starts with /"),
        ("path:/a//{}", "'path:/a//{}': a path starts with /"),
        ("body:a..b", "'body:a..b': not a JMESPath expression"),
        ("response.body:foo[", "'response.body:foo[': not a JMESPath expression"),
        ("body:nothing(a)", "'body:nothing(a)': not a JMESPath expression (Unknown function: nothing()"),
        ("body:length(a, b)", "'body:length(a, b)': not a JMESPath expression"),
        (";".join(["literal:a"] * (LOCATORS_MAX + 1)), f"{LOCATORS_MAX + 1} locators: at most {LOCATORS_MAX}"),
    ],
)
def test_errors_name_the_locator_and_what_to_write(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_locators(line)


@settings(max_examples=150)
@given(st.text(max_size=40))
def test_any_line_is_compiled_or_refused(line: str) -> None:
    try:
        locators = parse_locators(line)
    except ValueError:
        return
    raw = RawExchange("q", 1, 1, 0, 0, 0, b"GET /a/b HTTP/1.1\r\nHost: h\r\n\r\n", b"", EndFlag(0), True)
    assert locators.find(Exchange(raw)).unusable <= len(locators.each)

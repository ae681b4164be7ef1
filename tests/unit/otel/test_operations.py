"""Exchanges as GenAI operations: names and ids alone, whatever stands in their place."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.observer.apis.call import Call, Usage
from sidecar.observer.apis.registry import known_apis
from sidecar.observer.exchange import Exchange
from sidecar.observer.reader import RawExchange, Timing
from sidecar.otel import operations
from sidecar.otel.operations import operation_of
from sidecar.wire.records import EndFlag


def exchange(*, status=200, kind="application/json", flags=0, timing=True, body=b'{"model":"gpt-4o"}', method=b"POST"):
    head = b"%s /v1/chat/completions HTTP/1.1\r\nHost: a\r\ntraceparent: 00-x\r\nContent-Length: %d\r\n\r\n"
    return Exchange(
        RawExchange(
            producer="q",
            sequence=2,
            first=1,
            listener=0,
            started_ms=1_000,
            at_ms=1_500,
            request=head % (method, len(body)) + body,
            response=b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: 0\r\n\r\n" % (status, kind.encode()),
            flags=EndFlag(flags),
            finished=True,
            timing=Timing(1_000_100, 1_200_100, 1_500_000, 1_500_030) if timing else None,
        )
    )


CALL = Call(
    "openai.chat",
    model="gpt-4o-2024-11-20",
    usage=Usage(input=11, output=0, cached=3),
    finish_reason="stop",
    response_id="chatcmpl-1",
    completed=True,
)


def test_a_call_is_a_span_named_by_operation_and_model_asked_for():
    found = operation_of(exchange(), CALL, "c-42", host="api.openai.com", port=443)
    assert found.name == "chat gpt-4o"
    assert (found.start_ns, found.end_ns, found.error) == (1_000_000_000, 1_500_000_000, False)
    assert found.headers == {"traceparent": "00-x"}
    assert found.tokens == {"input": 11, "output": 0}  # an explicit zero is told
    assert found.attributes == {
        "server.address": "api.openai.com",
        "server.port": 443,
        "gen_ai.conversation.id": "c-42",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-11-20",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 0,
        "gen_ai.usage.cache_read.input_tokens": 3,
    }
    assert found.seconds_to_first_chunk is None


def test_a_stream_says_when_its_first_chunk_came():
    found = operation_of(exchange(kind="text/event-stream; charset=utf-8"), CALL, None)
    assert found.seconds_to_first_chunk == found.attributes["gen_ai.response.time_to_first_chunk"] == 0.2
    assert found.attributes["gen_ai.request.stream"] is True
    assert operation_of(exchange(kind="text/event-stream", timing=False), CALL, None).seconds_to_first_chunk is None


def test_every_api_has_its_operation():
    assert {api.name for api in known_apis()} == operations._APIS.keys()


@pytest.mark.parametrize(
    ("host", "api", "provider"),
    [
        ("acme.openai.azure.com", "openai.chat", "azure.ai.openai"),
        ("api.groq.com", "openai.chat", "groq"),
        ("notgroq.example.com", "openai.chat", "openai"),
        ("europe-west1-aiplatform.googleapis.com", "gemini", "gcp.vertex_ai"),
        ("bedrock-runtime.eu-west-1.amazonaws.com", "bedrock", "aws.bedrock"),
        ("api.groq.com", "mcp", "mcp"),
    ],
)
def test_whose_api_it_is_the_host_may_tell(host, api, provider):
    found = operation_of(exchange(), Call(api), None, host=host, port=443)
    assert found.attributes["gen_ai.provider.name"] == provider


@pytest.mark.parametrize(
    ("more", "call", "error"),
    [
        ({"status": 429}, Call("openai.chat", error="rate_limit_exceeded"), "rate_limit_exceeded"),
        ({"status": 500}, None, "500"),
        ({"flags": EndFlag.ABORTED_BY_CLIENT}, Call("openai.chat"), "aborted"),
        ({"flags": EndFlag.ABORTED_BY_CLIENT}, CALL, None),
        ({}, Call("openai.chat", error="what the user said"), "_OTHER"),
    ],
)
def test_what_went_wrong_is_one_word(more, call, error):
    found = operation_of(exchange(**more), call, None)
    assert found.attributes.get("error.type") == error
    assert found.error is (error is not None)


def test_what_is_not_understood_is_a_span_of_its_method_and_not_measured():
    found = operation_of(exchange(method=b"BREW", flags=EndFlag.DROPPED), None, None)
    assert (found.name, found.measured, found.attributes["sidecar.copy.complete"]) == ("_OTHER", None, False)


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_no_text_gets_through_in_the_place_of_a_name(model, reason, identity, error):
    body = json.dumps({"model": model}).encode()
    call = Call("openai.chat", model=model, finish_reason=reason, response_id=identity, error=error, completed=True)
    found = operation_of(exchange(body=body, status=400), call, None)
    for value in (found.name, *found.attributes.values(), *found.measured.values()):
        for text in value if isinstance(value, list) else [value]:
            assert not re.search(r"\s", str(text).removeprefix("chat "))
            assert len(str(text)) <= 300

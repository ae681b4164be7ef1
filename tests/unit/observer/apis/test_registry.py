from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.observer.apis.registry import known_apis, recognise


def test_every_api_has_a_name_and_a_test_of_its_own() -> None:
    names = [api.name for api in known_apis()]
    assert len(set(names)) == len(names) >= 10
    for api in known_apis():
        module = type(api).__module__.rpartition(".")[2]
        assert (Path(__file__).parent / f"test_{module}.py").exists()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "openai.chat"),
        ("/v1/messages", "anthropic.messages"),
        ("/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21", "openai.chat"),
        ("/openai/v1/responses", "openai.responses"),
        ("/v1/threads/thread_abc123/runs", "openai.assistants"),
        ("/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", "gemini"),
        ("/v1/projects/p/locations/l/publishers/anthropic/models/m:streamRawPredict", "anthropic.messages"),
        ("/model/amazon.nova-pro-v1%3A0/converse-stream", "bedrock"),
        ("/message:stream", "a2a"),
        ("/v1/embeddings", None),
        ("/", None),
    ],
)
def test_an_exchange_is_recognised(wire, path: str, name: str | None) -> None:
    api = recognise(wire.exchange(wire.post(path, {})))
    assert (api.name if api else None) == name


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/api/chat", {"model": "llama3.2", "messages": []}, "ollama"),
        ("/api/chat", {"id": "c-1", "messages": [{"role": "user", "parts": []}]}, "vercel.ui"),
        ("/", {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}, "mcp"),
        ("/", {"jsonrpc": "2.0", "id": 1, "method": "message/send"}, "a2a"),
        ("/", {"jsonrpc": "2.0", "id": 1, "method": "eth_call"}, None),
        ("/api/chat", {"text": "an agent of nobody's API"}, None),
    ],
)
def test_where_paths_say_little_bodies_say_more(wire, path: str, body: object, name: str | None) -> None:
    api = recognise(wire.exchange(wire.post(path, body)))
    assert (api.name if api else None) == name


def test_garbage_is_of_no_api(wire) -> None:
    assert recognise(wire.exchange(b"\x16\x03\x01")) is None

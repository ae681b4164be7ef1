"""The official A2A SDK's client, over JSON-RPC and HTTP+JSON, against a recording origin."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from a2a.client import ClientConfig, ClientFactory
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, Message, Part, Role, SendMessageRequest
from recording import origin, stream, whole

CONTEXT = "c295ea44-7543-4f78-b524-7a38915ad6e4"
TASK = "3f36680c-7f37-4a5f-945e-d78981fafd36"
PLACE = {"taskId": TASK, "contextId": CONTEXT}
EVENTS: list[dict[str, Any]] = [
    {"task": {"id": TASK, "contextId": CONTEXT, "status": {"state": "TASK_STATE_SUBMITTED"}}},
    {"artifactUpdate": PLACE | {"artifact": {"artifactId": "a-1", "parts": [{"text": "I closed"}]}}},
    {"artifactUpdate": PLACE | {"append": True, "artifact": {"artifactId": "a-1", "parts": [{"text": " it."}]}}},
    {"statusUpdate": PLACE | {"status": {"state": "TASK_STATE_COMPLETED"}}},
]
DONE = {
    "task": {
        "id": TASK,
        "contextId": CONTEXT,
        "status": {"state": "TASK_STATE_COMPLETED"},
        "artifacts": [{"artifactId": "a-1", "parts": [{"text": "I closed it."}]}],
    }
}


def card(url: str, binding: str, *, streams: bool) -> AgentCard:
    return AgentCard(
        name="desk",
        supported_interfaces=[AgentInterface(url=url, protocol_binding=binding, protocol_version="1.0")],
        capabilities=AgentCapabilities(streaming=streams),
    )


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
async def test_a_message(binding: str, streams: bool) -> None:
    rpc = binding == "JSONRPC"
    bodies = [{"jsonrpc": "2.0", "id": "r-1", "result": each} if rpc else each for each in [*EVENTS, DONE]]
    answer = stream(*((None, body) for body in bodies[:-1])) if streams else whole(bodies[-1])
    async with origin(answer) as server, httpx.AsyncClient() as http:
        config = ClientConfig(streaming=streams, httpx_client=http, supported_protocol_bindings=[binding])
        client = ClientFactory(config).create(card(server.url, binding, streams=streams))
        message = Message(role=Role.ROLE_USER, message_id="m-1", parts=[Part(text="Close it.")])
        told = [each async for each in client.send_message(SendMessageRequest(message=message))]
    assert told
    (call,) = server.calls()
    assert (call.api, call.conversation, call.task_id, call.state) == ("a2a", CONTEXT, TASK, "completed")
    assert (call.reply, call.completed, call.llm_call) == ("I closed it.", True, False)
    assert [(turn.role, turn.text) for turn in call.turns] == [("user", "Close it.")]

"""A fake LLM that speaks like the real ones: OpenAI Chat Completions and Anthropic Messages, JSON and SSE.

    python examples/fake_llm.py --port 9000
    OPENAI_BASE_URL=http://127.0.0.1:9000/v1 OPENAI_API_KEY=any python examples/agent.py

It keeps no state. What it answers follows from the conversation that each request carries (`decide` in
fake_llm_words.py): a user who asks for an order gets it looked up, one who says that all is solved gets the
conversation resolved, one who wants a human is transferred, and everyone else is answered in words. Only ids are
random, as with any provider: two conversations never share one. It prints one JSON line, {"address": "http://…"},
when it listens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections.abc import Iterator

from aiohttp import web
from fake_llm_anthropic import anthropic_body, anthropic_events, hear_anthropic
from fake_llm_openai import hear_openai, openai_body, openai_events
from fake_llm_words import BadRequestError, Json, decide, limited, make_id, tokens

BODY_BYTES_MAX = 8 * 2**20


class FakeLLM:
    """The HTTP side. `delay_s` is waited before every streamed event, and once before a whole answer."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s

    def application(self) -> web.Application:
        """Routes of both providers, as their SDKs call them."""
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        application.router.add_post("/v1/chat/completions", self.chat_completions)
        application.router.add_post("/v1/messages", self.messages)
        application.router.add_post("/v1/embeddings", self.embeddings)
        application.router.add_get("/v1/models", self.models)
        return application

    async def chat_completions(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions."""
        if not request.headers.get("Authorization", "").startswith("Bearer "):
            return _openai_error(401, "invalid_request_error", "You didn't provide an API key.")
        try:
            body = await _json_object(request)
            limit = body.get("max_completion_tokens") or body.get("max_tokens")
            answer = limited(decide(hear_openai(body)), limit)
        except (BadRequestError, KeyError, TypeError, AttributeError) as error:
            return _openai_error(400, "invalid_request_error", f"Invalid request: {error}")
        headers = {"x-request-id": make_id("req_", 32), "openai-version": "2020-10-01"}
        if body.get("stream"):
            return await self._stream(request, headers, openai_events(body, answer))
        return await self._whole(headers, openai_body(body, answer))

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/messages."""
        if not (request.headers.get("x-api-key") or request.headers.get("Authorization")):
            return _anthropic_error(401, "authentication_error", "x-api-key header is required")
        if "anthropic-version" not in request.headers:
            message = "anthropic-version: header is required"
            return _anthropic_error(400, "invalid_request_error", message)
        try:
            body = await _json_object(request)
            answer = limited(decide(hear_anthropic(body)), body["max_tokens"])
        except (BadRequestError, KeyError, TypeError, AttributeError) as error:
            return _anthropic_error(400, "invalid_request_error", f"Invalid request: {error}")
        headers = {"request-id": make_id("req_01", 22)}
        if body.get("stream"):
            return await self._stream(request, headers, anthropic_events(body, answer))
        return await self._whole(headers, anthropic_body(body, answer))

    async def embeddings(self, request: web.Request) -> web.Response:
        """POST /v1/embeddings: a small vector; something to call that is no conversation."""
        try:
            body = await _json_object(request)
        except BadRequestError as error:
            return _openai_error(400, "invalid_request_error", f"Invalid request: {error}")
        used = tokens(str(body.get("input")))
        datum = {"object": "embedding", "index": 0, "embedding": [0.25, -0.5, 0.125, 0.0625]}
        usage = {"prompt_tokens": used, "total_tokens": used}
        model = body.get("model")
        return web.json_response({"object": "list", "data": [datum], "model": model, "usage": usage})

    async def models(self, _request: web.Request) -> web.Response:
        """GET /v1/models."""
        model = {"id": "gpt-4o", "object": "model", "created": 1715367049, "owned_by": "system"}
        return web.json_response({"object": "list", "data": [model]})

    async def _whole(self, headers: dict[str, str], body: Json) -> web.Response:
        await asyncio.sleep(self._delay_s)
        response = web.json_response(body, headers=headers)
        response.enable_compression()  # gzip for who accepts it, as the providers do
        return response

    async def _stream(
        self, request: web.Request, headers: dict[str, str], events: Iterator[bytes]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers | {"Cache-Control": "no-cache"})
        response.content_type = "text/event-stream"
        response.charset = "utf-8"
        await response.prepare(request)
        for event in events:
            await asyncio.sleep(self._delay_s)
            await response.write(event)
        await response.write_eof()
        return response


async def _json_object(request: web.Request) -> Json:
    try:
        body = json.loads(await request.read())
    except ValueError as error:
        raise BadRequestError("the body is not JSON") from error
    if not isinstance(body, dict):
        raise BadRequestError("the body must be a JSON object")
    return body


def _openai_error(status: int, kind: str, message: str) -> web.Response:
    error = {"message": message, "type": kind, "param": None, "code": None}
    return web.json_response({"error": error}, status=status)


def _anthropic_error(status: int, kind: str, message: str) -> web.Response:
    body = {"type": "error", "error": {"type": kind, "message": message}}
    return web.json_response(body, status=status)


async def serve(host: str, port: int, delay_s: float) -> None:
    """Listen until SIGTERM or SIGINT; prints the address once."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(FakeLLM(delay_s).application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        bound_host, bound_port = runner.addresses[0][:2]
        print(json.dumps({"address": f"http://{bound_host}:{bound_port}"}), flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000, help="0 takes a free one")
    parser.add_argument("--delay-ms", type=float, default=5.0, help="before each streamed event")
    options = parser.parse_args()
    asyncio.run(serve(options.host, options.port, options.delay_ms / 1000))


if __name__ == "__main__":
    main()

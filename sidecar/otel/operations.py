"""An exchange as a GenAI client operation: its span, and what is measured of it. Pure; no text of the exchange.

Everything that comes from the traffic is checked for looking like a name or an id, since anything may stand in the
place of one; what does not is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from sidecar.observer.apis.call import Call, as_dict, as_text
from sidecar.observer.exchange import Exchange
from sidecar.otel import conventions as names

Value = str | bool | int | float | list[str]

# By API: the operation, and the provider unless the upstream's host says it.
_APIS: Final = {
    "a2a": ("invoke_agent", "a2a"),
    "anthropic.messages": ("chat", "anthropic"),
    "bedrock": ("chat", "aws.bedrock"),
    "gemini": ("generate_content", "gcp.gemini"),
    "gemini.interactions": ("generate_content", "gcp.gemini"),
    "mcp": ("execute_tool", "mcp"),
    "ollama": ("chat", "ollama"),
    "openai.assistants": ("invoke_agent", "openai"),
    "openai.chat": ("chat", "openai"),
    "openai.responses": ("chat", "openai"),
    "vercel.ui": ("invoke_agent", "vercel"),
}
# APIs that many providers speak: whose it is, the host tells.
_BY_HOST: Final = (
    (".openai.azure.com", "azure.ai.openai"),
    (".services.ai.azure.com", "azure.ai.inference"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    (".amazonaws.com", "aws.bedrock"),
    ("api.groq.com", "groq"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.deepseek.com", "deepseek"),
    ("api.x.ai", "x_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.cohere.com", "cohere"),
    ("api.moonshot.ai", "moonshot_ai"),
)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_NAME: Final = re.compile(r"[\w:./-]{1,64}")
_ID: Final = re.compile(r"[!-~]{1,256}")
_MODEL: Final = re.compile(r"[\w@.:/+~=-]{1,200}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Operation:
    """One exchange. Times are Unix nanoseconds; `headers` are those from which the parent is read.

    `measured` are the attributes that its metrics have too; None for an exchange that is no GenAI operation.
    """

    name: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Value]
    measured: dict[str, str] | None = None
    error: bool = False
    tokens: dict[str, int] = field(default_factory=dict)
    seconds_to_first_chunk: float | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.end_ns - self.start_ns) / 1_000_000_000


def operation_of(
    exchange: Exchange, call: Call | None, conversation: str | None, *, host: str = "", port: int = 0
) -> Operation:
    """The operation of a finished exchange; `host` and `port` are the upstream's."""
    attributes: dict[str, Value] = {names.SERVER_ADDRESS: host, names.SERVER_PORT: port} if host else {}
    if conversation:
        attributes[names.CONVERSATION_ID] = conversation
    if exchange.status:
        attributes[names.HTTP_STATUS] = exchange.status
    if not exchange.whole:
        attributes[names.COPY_COMPLETE] = False
    error = _error_of(exchange, call)
    if error:
        attributes[names.ERROR_TYPE] = error
    timing, raw = exchange.raw.timing, exchange.raw
    start_ns, end_ns = raw.started_ms * 1_000_000, max(raw.at_ms, raw.started_ms) * 1_000_000
    if timing is not None:
        end_ns = max(timing.last_answer_us * 1_000, start_ns)
    headers = {name: exchange.headers[name] for name in ("traceparent", "tracestate") if name in exchange.headers}
    if call is None:
        method = exchange.method if exchange.method in _METHODS else names.OTHER
        attributes[names.HTTP_METHOD] = method
        return Operation(method, start_ns, end_ns, attributes, error=bool(error), headers=headers)
    measured = _measured(exchange, call, host)
    first_chunk = None
    if streams(exchange):
        attributes[names.REQUEST_STREAM] = True
        if timing is not None:
            first_chunk = (timing.first_answer_us - timing.asked_us) / 1_000_000
            attributes[names.RESPONSE_TIME_TO_FIRST_CHUNK] = first_chunk
    model = measured.get(names.REQUEST_MODEL, "")
    return Operation(
        f"{measured[names.OPERATION_NAME]} {model}".strip(),
        start_ns,
        end_ns,
        attributes | measured | _answered(call),
        measured=measured | ({names.ERROR_TYPE: error} if error else {}),
        error=bool(error),
        tokens=_tokens(call),
        seconds_to_first_chunk=first_chunk,
        headers=headers,
    )


def word(text: str) -> str:
    """The text if it is a name, as those in plans and of sources of signals are; else a word for any other."""
    return text if _NAME.fullmatch(text) else names.OTHER


def streams(exchange: Exchange) -> bool:
    """Whether the answer came as a stream."""
    media_type = exchange.response_headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type in {
        "text/event-stream",
        "application/x-ndjson",
        "application/vnd.amazon.eventstream",
    }


def _measured(exchange: Exchange, call: Call, host: str) -> dict[str, str]:
    operation, provider = _APIS.get(call.api, ("chat", call.api))
    if operation == "chat" and exchange.path.endswith("/embeddings"):
        operation = "embeddings"
    told = {names.OPERATION_NAME: operation, names.PROVIDER_NAME: _provider(host, provider)}
    asked = as_text(as_dict(exchange.request_json).get("model")) or call.model or ""
    if _MODEL.fullmatch(asked):
        told[names.REQUEST_MODEL] = asked
    if call.completed and call.model and _MODEL.fullmatch(call.model):
        told[names.RESPONSE_MODEL] = call.model
    return told


def _provider(host: str, otherwise: str) -> str:
    if otherwise in {"openai", "gcp.gemini", "anthropic"}:
        return next((provider for end, provider in _BY_HOST if host == end or host.endswith(end)), otherwise)
    return otherwise


def _answered(call: Call) -> dict[str, Value]:
    told: dict[str, Value] = {}
    if call.finish_reason and _WORD.fullmatch(call.finish_reason):
        told[names.FINISH_REASONS] = [call.finish_reason]
    if call.response_id and _ID.fullmatch(call.response_id):
        told[names.RESPONSE_ID] = call.response_id
    usage = {
        names.INPUT_TOKENS: call.usage.input,
        names.OUTPUT_TOKENS: call.usage.output,
        names.CACHED_TOKENS: call.usage.cached,
        names.REASONING_TOKENS: call.usage.reasoning,
    }
    return told | {name: number for name, number in usage.items() if number is not None}


def _tokens(call: Call) -> dict[str, int]:
    found = {"input": call.usage.input, "output": call.usage.output}
    return {kind: number for kind, number in found.items() if number is not None}


def _error_of(exchange: Exchange, call: Call | None) -> str:
    """A word for what went wrong; empty when nothing did."""
    if call is not None and call.error:
        return call.error if _WORD.fullmatch(call.error) else names.OTHER
    if exchange.status >= 400:
        return str(exchange.status)
    if exchange.aborted and not (call is not None and call.completed):
        return "aborted"
    return "" if exchange.status else "no_response"

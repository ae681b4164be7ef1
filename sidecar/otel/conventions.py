"""The names used, from OpenTelemetry's semantic conventions 1.41.1, the last release that holds the GenAI ones.

They are in development there, and may change. https://github.com/open-telemetry/semantic-conventions/tree/v1.41.1
"""

from __future__ import annotations

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.1"

OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_ID: Final = "gen_ai.response.id"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105  of a language model
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
HTTP_METHOD: Final = "http.request.method"
HTTP_STATUS: Final = "http.response.status_code"

TOKEN_USAGE: Final = "gen_ai.client.token.usage"  # noqa: S105
OPERATION_DURATION: Final = "gen_ai.client.operation.duration"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"

EVALUATION_RESULT: Final = "gen_ai.evaluation.result"
EVALUATION_NAME: Final = "gen_ai.evaluation.name"
SCORE_LABEL: Final = "gen_ai.evaluation.score.label"
SCORE_VALUE: Final = "gen_ai.evaluation.score.value"
EXPLANATION: Final = "gen_ai.evaluation.explanation"

# What the conventions have no name for.
SESSION_ID: Final = "sidecar.session.id"
OUTCOME_ID: Final = "sidecar.outcome.id"
OUTCOME_NAME: Final = "sidecar.outcome.name"
OUTCOME_REVISION: Final = "sidecar.outcome.revision"
OUTCOME_BILLABLE: Final = "sidecar.outcome.billable"
OUTCOME_SHADOW: Final = "sidecar.outcome.shadow"
COPY_COMPLETE: Final = "sidecar.copy.complete"

# The buckets that the conventions advise.
TOKEN_BOUNDS: Final = tuple(float(4**power) for power in range(14))
SECONDS_BOUNDS: Final = tuple(0.01 * 2**power for power in range(14))
OTHER: Final = "_OTHER"

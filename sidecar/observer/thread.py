"""What the texts of a call tell of its conversation, for calls that bring no id. Pure; digests only.

How it works. APIs without state get the whole history with every call. System prompts are left out of it, since they
change; of tool results only the place counts, since agents shorten them; white space does not count, since clients put
the pieces of an answer together in their own ways. What is left is a chain of what users asked and models answered:

- `asked` digests all of it: the same request sent again, after a failure say, has the same digest.
- `follows` digests it up to the last answer: where the conversation stood. The call that gave that answer had the same
  digest as `reaches`, so that the two calls find each other, and so does any branch that begins there.
- `recalls` are for histories whose last answers are not known: everything that had been asked before each of these,
  whatever became of it, the newest first. The answering call's own `asked` was the same.
- `answers` are for histories that were trimmed, summarised or touched up: the last answers, the newest first, each with
  the question before it and alone. The answering call made the same digests (`makes`). Texts too short to tell one
  conversation from another are left out.

Digests are keyed (HMAC) and scoped by tenant, API key, API and route: equal texts under different keys never meet, nor
do the two sides of an agent that hands texts through. Credentials that are renewed are known by what stays the same in
them: who a token is of (`sub`), an AWS key of a role's session (`ASIA…`) by region and service, a Google access token
(`ya29.…`) by the project in the path. Two callers whose credentials have all that in common are one to the digests.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

from sidecar.observer.apis.call import Call, Turn
from sidecar.observer.exchange import Exchange
from sidecar.observer.observation import Thread

ANSWERS_MAX = 4  # of the history's, looked for when its beginning is not known
TELLING_BYTES_MIN = 16  # of a text that may stand alone

_DIGEST_CHARACTERS = 40
_CALLER_CHARACTERS = 16
_WHITE_SPACE = b" \t\r\n\v\f"
# Where the keys of models' APIs travel, and those of the gateways in front of them, which keep the former for all.
KEY_HEADERS = (
    "authorization",
    "x-api-key",  # Anthropic, and many that are not named here
    "api-key",  # Azure OpenAI
    "x-goog-api-key",
    "ocp-apim-subscription-key",  # Azure API Management
    "x-portkey-api-key",
    "x-portkey-virtual-key",
    "x-litellm-api-key",
    "cf-aig-authorization",  # Cloudflare AI Gateway
    "helicone-auth",
    "x-bf-vk",  # Bifrost
    "apikey",  # Kong, Apigee
    "x-apikey",
)
KEY_PARAMETERS = ("key", "subscription-key")  # Gemini's, Azure API Management's
# Keys that last an hour or so, and are not the same in two pods of one agent.
_AWS_CREDENTIAL = re.compile(r"AWS4-[A-Z0-9-]+ .*?Credential=([^/,\s]+)(?:/\d+/([^/,\s]+)/([^/,\s]+)/)?")
_AWS_TEMPORARY = "ASIA"
_GOOGLE_TOKEN = re.compile(r"Bearer\s+ya29\.", re.IGNORECASE)
_GOOGLE_PROJECT = re.compile(r"/projects/([^/]+)/")
_CLIENT_CLAIMS = ("sub", "client_id", "azp", "appid")
# How clients say that they send a request again: a count of the attempts before, or the number of this one.
_RETRY_COUNTS = ("x-stainless-retry-count", "x-retry-count")
_AWS_ATTEMPT = re.compile(r"\battempt=(\d+)")


@dataclass(slots=True)
class _Step:
    """One link of the chain: `user`, `answer` (a model's, its text empty if it only called tools) or `tool`."""

    kind: str
    text: bytes  # without white space
    media: bytes = b""  # digest of all that is no text


def caller_of(tenant: str, hash_key: bytes, exchange: Exchange) -> str:
    """A digest of whose credentials the call has, on which route: what ids that two answers made are told apart by."""
    return hmac.new(hash_key, _packed(_caller(tenant, exchange)), hashlib.sha256).hexdigest()[:_CALLER_CHARACTERS]


def read_thread(tenant: str, hash_key: bytes, exchange: Exchange, call: Call) -> Thread | None:
    """The digests of one call; None when it says nothing."""
    steps = _steps(call.turns)
    if not steps:
        return None
    scope = (*_caller(tenant, exchange), call.api, call.previous_response_id or "")
    key = hmac.new(hash_key, _packed(scope), hashlib.sha256).digest()
    states = _states(key, steps)  # states[n]: after the first n steps
    answers = [n for n, step in enumerate(steps) if step.kind == "answer" and n + 1 < len(steps)]
    answered = call.completed and call.error is None
    reaches, makes = _reached(key, steps, states, call.reply) if answered else ("", ())
    return Thread(
        asked=_named("asked", states[-1]),
        again=_is_again(exchange),
        follows=_named("state", states[answers[-1] + 1]) if answers else "",
        recalls=tuple(dict.fromkeys(_recalls(steps, states, answers[-ANSWERS_MAX:]))),
        answers=tuple(
            dict.fromkeys(filter(None, (tuple(_answer(key, steps, n)) for n in answers[: -ANSWERS_MAX - 1 : -1])))
        ),
        reaches=reaches,
        makes=makes,
    )


def _steps(turns: Iterable[Turn]) -> list[_Step]:
    steps: list[_Step] = []
    answer: list[bytes] = []  # pieces of one answer, as some clients keep a stream
    for turn in turns:
        if turn.role == "system":
            continue
        last = steps[-1].kind if steps else ""
        text = _bare(turn.text)
        if turn.role == "assistant":
            if last != "answer":
                steps.append(_Step("answer", b""))
            answer.append(text)
            continue
        if answer:
            steps[-1].text = b"".join(answer)
            answer.clear()
        if turn.role == "tool":
            if last not in ("answer", "tool"):  # some APIs keep a model's tool calls apart from what it says
                steps.append(_Step("answer", b""))
            if last != "tool":
                steps.append(_Step("tool", b""))
        else:
            steps.append(_Step("user", text, _media(turn.media)))
    if answer:
        steps[-1].text = b"".join(answer)
    return steps


def _media(parts: Iterable[str]) -> bytes:
    """One digest of many, which may be half a million: nothing is held but the hash."""
    digest = hashlib.sha256()
    found = False
    for part in parts:
        found = True
        digest.update(_packed((part,)))
    return digest.digest() if found else b""


def _states(key: bytes, steps: Iterable[_Step]) -> list[bytes]:
    states = [b""]
    for step in steps:
        states.append(_next(key, states[-1], step))
    return states


def _next(key: bytes, state: bytes, step: _Step) -> bytes:
    if step.kind == "tool":
        return state
    return hmac.digest(key, state + _packed((step.kind, step.text, step.media)), "sha256")


def _reached(key: bytes, steps: list[_Step], states: list[bytes], reply: str) -> tuple[str, tuple[str, ...]]:
    """Where the conversation stands after the answer, and the weaker digests of that answer."""
    text = _bare(reply)
    before = steps
    if steps[-1].kind == "answer":  # the beginning of the answer was given; the history will have it in one piece
        text, before = steps[-1].text + text, steps[:-1]
    answer = _Step("answer", text)
    state = _next(key, states[len(before)], answer)
    return _named("state", state), tuple(_answer(key, [*before, answer], len(before)))


def _recalls(steps: list[_Step], states: list[bytes], answers: list[int]) -> Iterable[str]:
    for n in reversed(answers):
        if sum(len(step.text) for step in steps[:n]) >= TELLING_BYTES_MIN:
            yield _named("asked", states[n])


def _answer(key: bytes, steps: list[_Step], n: int) -> Iterable[str]:
    """The answer at `n`: with the question before it, and alone."""
    text = steps[n].text
    question = next((step.text for step in reversed(steps[:n]) if step.kind == "user"), b"")
    if question and len(question) + len(text) >= TELLING_BYTES_MIN:
        yield _named("pair", hmac.digest(key, _packed((question, text)), "sha256"))
    if len(text) >= TELLING_BYTES_MIN:
        yield _named("reply", hmac.digest(key, _packed((text,)), "sha256"))


def _named(what: str, state: bytes) -> str:
    """A state may be looked at in more than one way: the name keeps these apart."""
    return hashlib.sha256(what.encode() + state).hexdigest()[:_DIGEST_CHARACTERS]


def _bare(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass").translate(None, _WHITE_SPACE)


def _packed(parts: Iterable[str | bytes]) -> bytes:
    raw = [part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join(len(part).to_bytes(8, "big") + part for part in raw)


def _caller(tenant: str, exchange: Exchange) -> tuple[str, ...]:
    return (tenant, *_credentials(exchange), str(exchange.raw.listener))


def _credentials(exchange: Exchange) -> tuple[str, ...]:
    """Who calls the API: its keys, or what stays the same in those that are signed or renewed."""
    found = [_principal(exchange, exchange.headers[name]) for name in KEY_HEADERS if name in exchange.headers]
    return (*found, *(exchange.query.get(name, "") for name in KEY_PARAMETERS))


def _principal(exchange: Exchange, value: str) -> str:
    if match := _AWS_CREDENTIAL.match(value):
        key_id, region, service = match.groups("")
        return f"aws {region} {service}" if key_id.startswith(_AWS_TEMPORARY) else key_id
    if _GOOGLE_TOKEN.match(value):
        project = _GOOGLE_PROJECT.search(exchange.path)
        return f"google {project[1] if project else exchange.headers.get('host', '')}"
    claims = exchange.claims if value == exchange.headers.get("authorization") else {}
    for name in _CLIENT_CLAIMS:
        whose = claims.get(name)
        if isinstance(whose, str) and whose:
            return f"{claims.get('iss')} {whose}"  # the token is renewed every hour or so
    return value


def _is_again(exchange: Exchange) -> bool:
    if any(exchange.headers.get(name, "0") not in ("", "0") for name in _RETRY_COUNTS):
        return True
    attempt = _AWS_ATTEMPT.search(exchange.headers.get("amz-sdk-request", ""))
    return attempt is not None and int(attempt[1][:6]) > 1

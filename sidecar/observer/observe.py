"""From an exchange to the observation that it leaves behind. Pure: what it needs of the world is given to it.

Text ends here. Rules see it in memory; the observation holds ids, counts, and digests under the deployment's hash key.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import structlog

from sidecar.identity import content_digest
from sidecar.observer.apis.call import Call, ToolCall
from sidecar.observer.apis.registry import recognise
from sidecar.observer.exchange import Exchange
from sidecar.observer.jsonbytes import canonical
from sidecar.observer.locators import is_usable, parse_locators
from sidecar.observer.observation import Observation
from sidecar.observer.reader import RawExchange
from sidecar.observer.stitch import Stitch, Stitcher, is_telling
from sidecar.policy.effect import Effect
from sidecar.policy.terms import Terms
from sidecar.wire.message import Message

USER_MESSAGES_MAX = 200
# Of a body that no API module reads, this much is shown to rules as `text`.
PLAIN_TEXT_BYTES_MAX = 64 << 10

log = structlog.get_logger(__name__)


class Judge(Protocol):
    """The rules of a plan."""

    def wants(self, on: str) -> bool:
        """Whether any rule looks at this kind of event."""

    def judge(self, on: str, facts: Mapping[str, Any], *, call: str = "", digest: str = "") -> tuple[Effect, ...]:
        """The effects of every rule that holds."""


class Plan(Protocol):
    """What a loaded plan is to the observer."""

    @property
    def terms(self) -> Terms:
        """What it says about sessions."""

    @property
    def rules(self) -> Judge:
        """What it says about outcomes."""


class Observing:
    """Observes the exchanges of one deployment.

    `session_keys` and `customer` are lines of locators (ValueError when they are none); `listeners` are the names of
    the routes by number, for `listener:` locators. `on_exchange` is shown every finished exchange, with what was read
    of it and the conversation's explicit id. `on_count` is told the name of each thing worth counting, each time:

    `request_unreadable`, `response_unreadable`; `opaque`, with `coding_unknown`, `coding_nested`, `body_too_large` or
    `body_too_dense` if it was a body's coding, `too_many_values` if it was its JSON; `coding_broken`; `json_broken`,
    `json_too_deep`, `json_repaired`; `answer_too_long` (a stream, or its parts too many); `answer_unended` (the end of
    an answer that came whole was not found in it: a server, or a version of an API, that is not known);
    `api_failed` (a defect: the exchange is treated as of unknown API); `session_key_unusable`, `customer_unusable`,
    `model_unusable`; what a bound left out: `session_keys_over` (more conversation ids than are looked at),
    `handed_on_ids_over`, `made_ids_over` (ids of tool calls), `user_messages_over` (the oldest of a history),
    `plain_text_cut` (of a body that no API's module reads); and for exchanges that leave no observation `unidentified`
    (unknown API, no id) and `unanswered` (known API, no answer, nothing by which the next attempt could be known).
    """

    def __init__(  # noqa: PLR0917 -- made once, from the settings
        self,
        tenant: str,
        hash_key: bytes,
        session_keys: str,
        customer: str,
        shadow: bool,  # noqa: FBT001 -- the deployment's mode, named at the one call
        on_count: Callable[[str], None],
        *,
        listeners: Sequence[str] = (),
        on_exchange: Callable[[Exchange, Call | None, str | None], None] = lambda _exchange, _call, _conversation: None,
    ) -> None:
        self._tenant = tenant
        self._hash_key = hash_key
        self._stitcher = Stitcher(tenant, parse_locators(session_keys), hash_key)
        self._customer = parse_locators(customer)
        self._shadow = shadow
        self._count = on_count
        self._listeners = tuple(listeners)
        self._show = on_exchange

    def quietly(self) -> Observing:
        """One that sees the same and counts nothing."""
        twin = copy.copy(self)
        twin._count = lambda _name: None  # noqa: SLF001 -- its own kind
        twin._show = lambda _exchange, _call, _conversation: None  # noqa: SLF001
        return twin

    def observe(self, raw: RawExchange, plan: Plan, former: Sequence[Plan] = ()) -> Observation | None:
        """The observation of an exchange; None when there is no session that it could belong to.

        `former` are plans that were in force before: sessions that opened under one are judged by its rules.
        """
        exchange = Exchange(raw, listener=self._listener(raw.listener))
        if not raw.finished:
            return self._touch(exchange, plan)
        call = self._call(exchange)
        stitch = self._stitcher.stitch(exchange, call)
        for reason in (*exchange.reasons, *(["opaque"] if exchange.opaque else [])):
            self._count(reason)
        self._count_times("session_key_unusable", stitch.unusable)
        for bound in stitch.over:
            self._count(bound)
        self._show(exchange, call, stitch.conversation)
        opens = stitch.conversation is not None or (call is not None and call.opens and exchange.succeeded)
        if not opens and (dropped := _belongs_nowhere(call, stitch)):
            self._count(dropped)
            return None
        return self._observation(exchange, call, stitch, (plan, *former), opens=opens)

    def _observation(
        self, exchange: Exchange, call: Call | None, stitch: Stitch, plans: tuple[Plan, ...], *, opens: bool
    ) -> Observation:
        raw = exchange.raw
        digests = {
            "request": content_digest(self._hash_key, raw.request),
            "response": content_digest(self._hash_key, raw.response),
        }
        answered = call is not None and exchange.succeeded and call.error is None
        tool_calls = self._tool_calls(exchange, call) if call is not None and answered and call.completed else []
        plan, effects, former = plans[0], *self._effects(plans, exchange, call, digests, tool_calls)
        return Observation(
            producer=raw.producer,
            sequence=raw.sequence,
            tenant=self._tenant,
            started_ms=raw.started_ms,
            at_ms=raw.at_ms,
            keys=stitch.keys,
            made=stitch.made,
            thread=stitch.thread,
            opens=opens,
            user_side=_is_user_side(call),
            base=stitch.base,
            terms=plan.terms,
            conversation=stitch.conversation,
            customer=self._customer_of(exchange),
            caller=stitch.caller,
            api=call.api if call else None,
            complete=exchange.copied if call is None else exchange.whole and not call.overflow,
            aborted=exchange.aborted and not (call and call.completed),
            shadow=self._shadow,
            user_messages=self._user_messages(call) if call else (),
            said_now=_said_now(call) if call else None,
            tool_calls=tuple(digest for digest, _tool_call in tool_calls),
            llm_calls=int(answered and call is not None and call.llm_call),
            models=self._models(call) if call and answered else (),
            input_tokens=(call.usage.input or 0) if call else 0,
            output_tokens=(call.usage.output or 0) if call else 0,
            effects=effects,
            digests=digests,
            former=former,
        )

    def _effects(
        self,
        plans: Sequence[Plan],
        exchange: Exchange,
        call: Call | None,
        digests: Mapping[str, str],
        tool_calls: Sequence[tuple[str, ToolCall]],
    ) -> tuple[tuple[Effect, ...], dict[str, tuple[Effect, ...]]]:
        """What the rules of the first plan say, and, by digest, what those of the others say otherwise."""
        shown = {"request": exchange.request_body.body, "response": exchange.response_body.body} if call is None else {}
        if any(len(body) > PLAIN_TEXT_BYTES_MAX and plans[0].rules.wants(on) for on, body in shown.items()):
            self._count("plain_text_cut")
        by_plan = {}
        for plan in plans:
            judged = _Judged(self._hash_key, plan.rules, exchange, call, digests)
            by_plan[plan.terms.digest] = (*judged.request(), *judged.response(), *judged.tool_calls(tool_calls))
        effects = by_plan.pop(plans[0].terms.digest)
        return effects, {digest: said for digest, said in by_plan.items() if said != effects}

    def _touch(self, exchange: Exchange, plan: Plan) -> Observation | None:
        """A sign of life of an exchange still running: it counts nothing, and finds a session by explicit ids alone."""
        stitch = self._stitcher.stitch(exchange, None)
        if stitch.conversation is None:
            return None
        raw = exchange.raw
        return Observation(
            producer=raw.producer,
            sequence=raw.sequence,
            tenant=self._tenant,
            started_ms=raw.started_ms,
            at_ms=raw.at_ms,
            keys=stitch.keys,
            base=stitch.base,
            terms=plan.terms,
            conversation=stitch.conversation,
            customer=self._customer_of(exchange),
            touch=True,
            shadow=self._shadow,
        )

    def _call(self, exchange: Exchange) -> Call | None:
        api = recognise(exchange)
        if api is None:
            return None
        try:
            call = api.read(exchange)
        except Exception:
            # A defect of one API's module must not cost the exchange: with an id in its head it is still activity.
            log.exception("exchange_not_read", api=api.name, sequence=exchange.raw.sequence)
            self._count("api_failed")
            return None
        if call.overflow:
            self._count("answer_too_long")
        elif not (call.completed or call.error or call.finish_reason) and exchange.response_body.complete:
            self._count("answer_unended")
        return call

    def _customer_of(self, exchange: Exchange) -> str | None:
        found = self._customer.find(exchange)
        self._count_times("customer_unusable", found.unusable)
        return found.value

    def _models(self, call: Call) -> tuple[str, ...]:
        """The model, which stands in clear in what is posted: a name, not any text in its place."""
        if call.model and not is_usable(call.model):
            self._count("model_unusable")
            return ()
        return (call.model,) if call.model else ()

    def _user_messages(self, call: Call) -> tuple[str, ...]:
        """A digest of each user message, with its number among equal ones in this request.

        So a history that is sent again brings none that was not seen before, trimmed at its start or not, and a second
        "yes" is another message than the first. A guard or a classifier that is asked about the message alone brings
        none either. The user's side has digests of its own: each side counts alone.
        """
        side = ("user side",) if _is_user_side(call) else ()
        seen: Counter[tuple[str, ...]] = Counter()
        numbered = []
        for turn in call.turns:
            if turn.role == "user":
                said = (turn.text, *turn.media)
                numbered.append((*side, str(seen[said]), *said))
                seen[said] += 1
        if len(numbered) > USER_MESSAGES_MAX:
            self._count("user_messages_over")
        return tuple(content_digest(self._hash_key, *parts) for parts in numbered[-USER_MESSAGES_MAX:])

    def _tool_calls(self, exchange: Exchange, call: Call) -> list[tuple[str, ToolCall]]:
        """Each tool call with the digest of its identity.

        That is its id; with its name, where servers number the calls of each answer anew (`call_0`), lest two calls
        pass for one; and where there is no id, the place where it was seen.
        """
        place = call.response_id or f"{exchange.raw.producer}:{exchange.raw.first}"

        def identity(number: int, each: ToolCall) -> tuple[str, ...]:
            if not each.id:
                return place, str(number)
            return (each.id,) if is_telling(each.id) else (each.id, each.name)

        numbered = enumerate(call.tool_calls)
        return list({content_digest(self._hash_key, *identity(n, each)): each for n, each in numbered}.items())

    def _listener(self, number: int) -> str:
        return self._listeners[number] if 0 <= number < len(self._listeners) else str(number)

    def _count_times(self, name: str, times: int) -> None:
        for _ in range(times):
            self._count(name)


def _is_user_side(call: Call | None) -> bool:
    """Whether a user spoke to an agent here, or an agent's user interface did, rather than an agent to a model."""
    return call is not None and not call.llm_call and any(turn.role == "user" for turn in call.turns)


def _said_now(call: Call) -> int:
    """How many of the user's messages come after the last answer or tool's result: the others are history."""
    answers = [number for number, turn in enumerate(call.turns) if turn.role in ("assistant", "tool")]
    since = call.turns[answers[-1] + 1 :] if answers else call.turns
    return min(sum(turn.role == "user" for turn in since), USER_MESSAGES_MAX)


def _belongs_nowhere(call: Call | None, stitch: Stitch) -> str:
    """What is counted when an exchange that opens no session cannot find one either; empty when it might.

    A tool's call, or a look at a task, may be found by its trace. A call of a model that failed is not worth a session,
    since its sender will try again, or has gone; but by its texts the next attempt is known for one.
    """
    if call is None:
        return "unidentified"
    if not call.opens:
        return "" if stitch.keys else "unidentified"
    known = stitch.thread is not None or any(key.kind != "trace" for key in stitch.keys)
    return "" if known else "unanswered"


class _Judged:
    """The rules' view of one exchange: facts are put together only for the kinds of events that a rule looks at."""

    def __init__(
        self, hash_key: bytes, rules: Judge, exchange: Exchange, call: Call | None, digests: Mapping[str, str]
    ) -> None:
        self._hash_key = hash_key
        self._rules = rules
        self._exchange = exchange
        self._call = call
        self._digests = digests

    def request(self) -> tuple[Effect, ...]:
        """Effects of the request, if all of it came. `text` is what the user says now, not what was said before."""
        exchange, call = self._exchange, self._call
        if exchange.request is None or not exchange.request.complete or not self._rules.wants("request"):
            return ()
        if call is None:
            text = _plain_text(exchange.request_body.body)
        else:
            text = call.turns[-1].text if call.turns and call.turns[-1].role == "user" else ""
        facts = self._facts(exchange.request, exchange.request_json, text)
        return self._rules.judge("request", facts, digest=self._digests["request"])

    def response(self) -> tuple[Effect, ...]:
        """Effects of the response, if all of it came: a cut answer says nothing for certain."""
        exchange, call = self._exchange, self._call
        if exchange.response is None or not self._rules.wants("response"):
            return ()
        ended = exchange.response.complete if call is None or call.error else call.completed
        if not ended:
            return ()
        return self._rules.judge("response", self._answered, digest=self._digests["response"])

    def tool_calls(self, tool_calls: Sequence[tuple[str, ToolCall]]) -> tuple[Effect, ...]:
        """Effects of the tool calls, given with the digests of their ids."""
        if not self._rules.wants("tool_call"):
            return ()
        return tuple(effect for digest, each in tool_calls for effect in self._tool_call(digest, each))

    def _tool_call(self, call_digest: str, tool_call: ToolCall) -> tuple[Effect, ...]:
        facts = self._answered | {"name": tool_call.name, "arguments": tool_call.arguments}
        evidence = content_digest(self._hash_key, tool_call.name, canonical(tool_call.arguments))
        return self._rules.judge("tool_call", facts, call=call_digest, digest=evidence)

    @cached_property
    def _answered(self) -> dict[str, Any]:
        """The facts of the response; a streamed answer's body is the one that it has been put together to."""
        exchange, call = self._exchange, self._call
        if exchange.response is None:
            return {}
        text = call.reply if call else _plain_text(exchange.response_body.body)
        body = call.answer if call is not None and call.answer is not None else exchange.response_json
        told = {"status": exchange.status} | ({"state": call.state} if call and call.state else {})
        return self._facts(exchange.response, body, text) | told

    def _facts(self, message: Message, body: Any, text: str) -> dict[str, Any]:
        headers: dict[str, str] = {}
        for name, value in message.fields:
            lower = name.lower()
            headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
        exchange, call = self._exchange, self._call
        facts = {"method": exchange.method, "path": exchange.path, "query": exchange.query}
        facts |= {"headers": headers, "body": body, "text": text}
        if call is not None:
            facts |= {"api": call.api} | ({"model": call.model} if call.model else {})
        return facts


def _plain_text(body: bytes) -> str:
    return body[:PLAIN_TEXT_BYTES_MAX].decode("utf-8", "replace")

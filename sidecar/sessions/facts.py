"""Observations and signals as the scripts read them: JSON without nulls, within the scripts' bounds.

An observation: producer, tenant, started_ms, at_ms, keys and made [{kind, digest, source}], base, opens, user_side,
terms {plan, digest, timeout_ms, …}, touch, complete, aborted, shadow, user_messages, tool_calls, models, llm_calls,
input_tokens, output_tokens, effects, digests; conversation, customer, caller, api, thread {asked, again, follows,
recalls, answers, reaches, makes} when known; session, root and merged (ids), when a former application is repeated;
former {plan's digest: effects} where a plan that was in force before says something else than `effects`; over {counter:
how many} when the bounds left something out.
A signal: producer, source, id, at_ms, effect; session_id or alias (a digest); claimed_at when given.
Attributes travel as JSON texts inside the JSON: Lua knows one kind of number and would not give them back unchanged.
"""

from __future__ import annotations

from typing import Any

import orjson

from sidecar.identity import Key
from sidecar.intake import signal
from sidecar.intake.signal import Signal
from sidecar.observer import observation
from sidecar.observer.observation import Observation, Thread
from sidecar.policy.effect import Effect
from sidecar.policy.terms import Terms

KEYS_MAX = 64
RECALLS_MAX = 16
SOURCE_CHARACTERS_MAX = 256
MESSAGES_MAX = 4096
CALLS_MAX = 1024
EFFECTS_MAX = 256
TOKENS_MAX = 10**12


def read_fact(kind: str, body: bytes) -> Observation | Signal:
    """The fact of a journal's row; raises ValueError when the bytes are none."""
    return observation.from_json(body) if kind == "observation" else signal.from_json(body)


def observation_json(o: Observation, went: str = "") -> bytes:
    """One observation for apply.lua; `went` is where it went when it was applied before (`Applied.went`)."""
    session, root, *merged = went.split() or ("", "")
    fact: dict[str, Any] = {
        "producer": o.producer,
        "tenant": o.tenant,
        "started_ms": o.started_ms,
        "at_ms": max(o.at_ms, o.started_ms),
        "keys": [_key(key) for key in o.keys[:KEYS_MAX]],
        "made": [_key(key) for key in o.made[:KEYS_MAX]],
        "thread": _thread(o.thread) if o.thread else None,
        "session": session or None,
        "root": root or None,
        "merged": merged or None,
        "opens": o.opens,
        "user_side": o.user_side,
        "base": o.base,
        "terms": _terms(o.terms),
        "conversation": o.conversation,
        "customer": o.customer,
        "caller": o.caller or None,
        "api": o.api,
        "touch": o.touch,
        # A call that is not looked at might have been an escalation.
        "complete": o.complete and len(o.tool_calls) <= CALLS_MAX and len(o.effects) <= EFFECTS_MAX,
        "aborted": o.aborted,
        "shadow": o.shadow,
        # A long history is resent in full: the newest messages are the ones that can be new.
        "user_messages": o.user_messages[-MESSAGES_MAX:],
        "said_now": None if o.said_now is None else min(o.said_now, MESSAGES_MAX),
        "tool_calls": o.tool_calls[:CALLS_MAX],
        "models": o.models,
        "llm_calls": o.llm_calls,
        "input_tokens": min(o.input_tokens, TOKENS_MAX),
        "output_tokens": min(o.output_tokens, TOKENS_MAX),
        "effects": [_effect(effect) for effect in o.effects[:EFFECTS_MAX]],
        "digests": o.digests,
        "former": {
            digest: [_effect(effect) for effect in effects[:EFFECTS_MAX]] for digest, effects in o.former.items()
        }
        or None,
        "over": _over(o) or None,
    }
    return orjson.dumps(_without_none(fact))


def _over(o: Observation) -> dict[str, int]:
    """What the bounds leave out, by the name under which it is counted."""
    counts = {
        "keys_over": max(len(o.keys) - KEYS_MAX, 0) + max(len(o.made) - KEYS_MAX, 0),
        "resent_messages_over": max(len(o.user_messages) - MESSAGES_MAX, 0),
        "calls_over": max(len(o.tool_calls) - CALLS_MAX, 0),
        "effects_over": max(len(o.effects) - EFFECTS_MAX, 0),
    }
    return {name: count for name, count in counts.items() if count}


def signal_json(s: Signal) -> bytes:
    """One signal for apply.lua."""
    fact: dict[str, Any] = {
        "producer": s.producer,
        "source": s.source,
        "id": s.id,
        "at_ms": s.at_ms,
        "effect": _effect(s.effect),
        "session_id": s.session_id,
        "alias": s.alias.digest if s.alias else None,
        "claimed_at": s.claimed_at,
    }
    return orjson.dumps(_without_none(fact))


def _key(key: Key) -> dict[str, str]:
    named = {"kind": key.kind, "digest": key.digest}
    return named | {"source": key.source[:SOURCE_CHARACTERS_MAX]} if key.source else named


def _thread(thread: Thread) -> dict[str, Any]:
    return {
        "asked": thread.asked,
        "again": thread.again,
        "follows": thread.follows or None,
        "recalls": thread.recalls[:RECALLS_MAX],
        "answers": thread.answers[:RECALLS_MAX],
        "reaches": thread.reaches or None,
        "makes": thread.makes[:RECALLS_MAX],
    }


def _terms(terms: Terms) -> dict[str, Any]:
    return {
        "plan": terms.plan,
        "digest": terms.digest,
        "timeout_ms": terms.timeout_ms,
        "settle_ms": terms.settle_ms,
        "reversal_ms": terms.reversal_ms,
        "inconclusive_policy": terms.inconclusive_policy,
        "incomplete_policy": terms.incomplete_policy,
        "on_return": terms.on_return,
    }


def _effect(effect: Effect) -> dict[str, Any]:
    return _without_none(
        {
            "rule": effect.rule,
            "kind": effect.kind,
            "event": effect.event,
            "outcome": effect.outcome,
            "confirmation": effect.confirmation,
            "reason": effect.reason,
            "customer": effect.customer,
            "attributes": {name: orjson.dumps(value).decode() for name, value in effect.attributes.items()},
            "call": effect.call,
            "digest": effect.digest,
        },
    )


def _without_none(fact: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in fact.items() if value is not None}
    return {name: _without_none(value) if isinstance(value, dict) else value for name, value in kept.items()}

"""Rules: what is seen in traffic, or told by a webhook, becomes effects on a session.

The facts of an event are a mapping, by its kind; `fields.FACTS` lists what each has. Names of headers are lower case in
the facts, and are written in any case in the plan. In `set`, `customer` and the values of `attributes` of a webhook's
rule may be paths (`payload.…`, `headers.…`), and the attributes of a tool call's (`arguments.…`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Any

from pydantic import TypeAdapter

from sidecar.policy.conditions import Conditions, gather, lookup, parse_path
from sidecar.policy.effect import Attribute, Effect, EventName
from sidecar.policy.plan import Alias, ConditionSpec, Setting, SignalRule, is_path
from sidecar.policy.tree import read_tree

VALUE_BYTES_MAX = 256
_CODE = re.compile(r"[A-Za-z0-9_.:@/+-]{1,64}")

_RESOLVING = ("resolve_conversation", "mark_resolved", "close_ticket")
_ESCALATING = ("transfer_to_human", "escalate_to_human", "handoff_to_agent", "request_human")


@dataclass(frozen=True, slots=True)
class Mapped:
    """A webhook's effect, and the alias (kind, value) under which its conversation is found."""

    effect: Effect
    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class _Rule:
    conditions: Conditions
    effect: Effect  # call and digest are filled in by `judge`
    alias: Alias | None


class Rules:
    """All rules of a plan, compiled. Pure: the same facts give the same effects."""

    def __init__(self, rules: Iterable[SignalRule]) -> None:
        self._rules: dict[str, tuple[_Rule, ...]] = {}
        for rule in rules:
            self._rules[rule.on] = (*self._rules.get(rule.on, ()), _compiled(rule))

    def wants(self, on: str) -> bool:
        """Whether any rule looks at this kind of event; if not, its facts need not be put together."""
        return on in self._rules

    def judge(self, on: str, facts: Mapping[str, Any], *, call: str = "", digest: str = "") -> tuple[Effect, ...]:
        """The effects of every rule that holds, in the plan's order.

        `call` is the digest of a tool call's id, `digest` the evidence: both are passed on in the effects.
        """
        return tuple(
            _filled(rule.effect, facts, call, digest) for rule in self._rules.get(on, ()) if rule.conditions.hold(facts)
        )

    def judge_webhook(self, facts: Mapping[str, Any], *, digest: str = "") -> tuple[Mapped, ...]:
        """As `judge`, with the alias of the conversation; a rule whose alias is not in the payload does not hold."""
        found = []
        for rule in self._rules.get("webhook", ()):
            if rule.alias is None or not rule.conditions.hold(facts):
                continue
            value = _text_at(facts, rule.alias.value)
            if value is not None:
                found.append(Mapped(_told(rule.effect, facts, digest), rule.alias.kind, value))
        return tuple(found)


def builtin_rules() -> list[SignalRule]:
    """The rules of a plan that has no `signals`.

    The usual names of tools by which agents resolve and hand over, and what the known senders of webhooks tell.
    """
    return [
        *(_tool_rule(name, Setting(outcome="RESOLVED", reason=f"{name} tool")) for name in _RESOLVING),
        *(_tool_rule(name, Setting(escalated_to_human=True, reason=f"{name} tool")) for name in _ESCALATING),
        *builtin_webhook_rules(),
    ]


@lru_cache(maxsize=1)
def builtin_webhook_rules() -> tuple[SignalRule, ...]:
    """`builtin/webhooks.yaml`."""
    tree = read_tree(resources.files("sidecar.policy").joinpath("builtin/webhooks.yaml").read_bytes())
    return tuple(TypeAdapter(list[SignalRule]).validate_python(tree.value))


def _tool_rule(name: str, setting: Setting) -> SignalRule:
    condition = ConditionSpec(field="name", operator="EQUALS", value=name)
    return SignalRule(id=name, on="tool_call", conditions=[condition], set=setting)


def _compiled(rule: SignalRule) -> _Rule:
    event, outcome = _event(rule.set)
    effect = Effect(
        rule=rule.id,
        kind=rule.on,
        event=event,
        outcome=outcome,
        confirmation=rule.set.confirmation,
        reason=rule.set.reason or rule.id,
        customer=rule.set.customer,
        attributes=dict(rule.set.attributes),
    )
    conditions = gather(spec.compiled(_lowered(spec.field)) for spec in rule.conditions)
    return _Rule(conditions, effect, rule.alias)


def _event(setting: Setting) -> tuple[EventName | None, str | None]:
    """What `set` means for the session's state, and the name of the outcome when it resolves."""
    if setting.escalated_to_human or setting.outcome == "ESCALATED_TO_HUMAN":
        return "escalate", None
    if setting.outcome is None:
        return None, None
    if setting.outcome == "UNRESOLVED":
        return "unresolve", None
    return "resolve", setting.outcome


def _lowered(field: str) -> str:
    root, dot, name = field.partition(".")
    return root + dot + (name.lower() if root == "headers" else name)


def _filled(effect: Effect, facts: Mapping[str, Any], call: str, digest: str) -> Effect:
    """An effect of traffic; what `set` reads out of a tool call and does not find is not set."""
    read = {
        name: _code(lookup(facts, parse_path(str(value)))) if is_path(effect.kind, value) else value
        for name, value in effect.attributes.items()
    }
    customer = effect.customer
    if customer is not None and is_path(effect.kind, customer):
        customer = _text_at(facts, customer)
    attributes = {name: value for name, value in read.items() if value is not None}
    return replace(effect, customer=customer, attributes=attributes, call=call, digest=digest)


def _code(found: Any) -> Attribute | None:
    """A number, true or false, or a code: words that somebody said never get into what is posted."""
    if isinstance(found, bool):
        return found
    if isinstance(found, int | float):
        return found if abs(found) < 2**63 else None
    return found if isinstance(found, str) and _CODE.fullmatch(found) else None


def _told(effect: Effect, facts: Mapping[str, Any], digest: str) -> Effect:
    """A webhook's effect, the paths in it replaced by what they lead to; what leads nowhere is left out."""
    attributes = {
        name: found
        for name, value in effect.attributes.items()
        if (found := _scalar_at(facts, value) if is_path("webhook", value) else value) is not None
    }
    customer = _text_at(facts, effect.customer) if is_path("webhook", effect.customer) else effect.customer
    return replace(effect, customer=customer, attributes=attributes, digest=digest)


def _text_at(facts: Mapping[str, Any], path: Any) -> str | None:
    """An id: the text or whole number at a path, as text. Anything else, empty or over-long, is none."""
    found = lookup(facts, parse_path(_lowered(path)))
    if isinstance(found, bool) or not isinstance(found, str | int):
        return None
    return _usable(str(found))


def _scalar_at(facts: Mapping[str, Any], path: Any) -> str | None:
    """An attribute: as an id, or a fraction, or true or false, as text."""
    found = lookup(facts, parse_path(_lowered(path)))
    if isinstance(found, bool):
        return "true" if found else "false"
    return _usable(str(found)) if isinstance(found, str | int | float) else None


def _usable(text: str) -> str | None:
    fits = 0 < len(text.encode("utf-8", "replace")) <= VALUE_BYTES_MAX
    return text if fits and text.isprintable() else None

"""The JSON Schema of a rate plan, made from the models: editors complete a plan with it and check it while one types.

What needs more than one place of a plan to be seen, `sidecar plan check` still says better: the schema is about shapes,
names and values. Numbers may be written as numbers or as texts, as the models take them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.policy.plan import NEEDS, PlanFile

_TITLE = "Rate plan of the outcome sidecar"
_NUMBER = {
    "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^\+?[0-9]{1,12}(\.[0-9]{1,12})?$"}]
}
_MEANINGS: Mapping[str, Mapping[str, str]] = {
    "PlanFile": {"rate_plan": "the plan"},
    "RatePlan": {
        "name": "shown on invoices",
        "billing_mode": "invoices are made after the period",
        "currency": "ISO 4217; here or in pricing, USD when nowhere",
        "trial_days": "outcomes in the first days of a contract are shown at zero",
        "metrics": "what is counted",
        "pricing": "shorthand for one charge over all metrics",
        "charges": "the lines of the invoice; a charge may count several metrics, a metric feed several charges",
        "guardrails": "bounds on what one customer pays in one period",
        "session_config": "how sessions behave; read by the sidecar",
        "signals": "how traffic and webhooks become outcomes; read by the sidecar; without it the built-in ones",
    },
    "Metric": {
        "aggregation": "COUNT events, SUM, or take the MAX, of a field, or count its UNIQUE values",
        "event_field": "dotted path into the event's data, like tokens.output",
        "filter_conditions": "all must hold for an event to be counted",
    },
    "ConditionSpec": {
        "field": "dotted path: into the event's data, or customer.…",
        "operator": "on a missing field NOT_EQUALS and NOT_IN hold, all others fail",
        "value": "what to compare with; a list for IN and NOT_IN",
        "window": "for UNIQUE_WITHIN_WINDOW: within what the earliest event counts",
    },
    "Charge": {
        "metrics": "ids of the metrics that it counts; FLAT may do without",
        "when": "conditions on event and customer, as of the outcome's time",
    },
    "_Price": {
        "model": "PER_UNIT, FLAT: once a period, GRADUATED: each tier its units, VOLUME: one tier for all, PACKAGE",
        "rate": "per unit, per package, or per period",
        "tiers": "for GRADUATED and VOLUME, ascending, the last one open",
        "package_size": "units of a package; a started one counts whole",
        "included_free": "units of each period that cost nothing",
        "overage_behavior": "what units beyond the free ones do",
    },
    "Tier": {"up_to": "the last unit of the tier; null: without end", "flat": "once, when the tier is entered"},
    "Guardrails": {
        "max_spend_cap": "most that a period's lines may come to",
        "max_spend_behavior": "ALERT tells at 50, 80 and 100 % and goes on; CAP stops there",
        "min_spend": "least that a period costs",
    },
    "SessionConfig": {
        "timeout_minutes": "silence after which a session ends",
        "settle_minutes": "how long a resolution waits before it is final",
        "reversal_hours": "how long a final outcome can still be changed",
        "inconclusive_policy": "what silence means: nothing charged, charged, or held for an operator",
        "incomplete_policy": "the same for sessions of which a copy of traffic was dropped",
        "on_return": "a new session, or the former resolution is taken back",
    },
}


def plan_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12."""
    schema = PlanFile.model_json_schema()
    definitions: dict[str, Any] = schema["$defs"]
    for name, definition in {**definitions, "PlanFile": schema}.items():
        meanings = {**(_MEANINGS["_Price"] if name in {"Charge", "Pricing"} else {}), **_MEANINGS.get(name, {})}
        for field, meaning in meanings.items():
            definition["properties"][field]["description"] = meaning
        for field, value in definition["properties"].items():
            definition["properties"][field] = _with_numbers(value)
    for name in ("Charge", "Pricing"):
        definitions[name]["allOf"] = [_needs(model, sorted(fields)) for model, fields in NEEDS.items()]
    definitions["ConditionSpec"]["allOf"] = [
        {
            "if": {"properties": {"operator": {"const": "UNIQUE_WITHIN_WINDOW"}}, "required": ["operator"]},
            "then": {"required": ["window"]},
        },
        {
            "if": {"properties": {"operator": {"enum": ["IN", "NOT_IN"]}}, "required": ["operator"]},
            "then": {"required": ["value"], "properties": {"value": {"type": "array", "minItems": 1}}},
        },
    ]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": _TITLE}


def _needs(model: str, fields: list[str]) -> dict[str, Any]:
    condition = {"properties": {"model": {"const": model}}, "required": ["model"]}
    return {"if": condition, "then": {"required": fields}}


def _with_numbers(value: dict[str, Any]) -> dict[str, Any]:
    """Pydantic's idea of a decimal (any number, or a text by its own pattern) as the plan's."""
    kinds = value.get("anyOf", [])
    if {"type": "number"} not in kinds:
        return value
    kept = [kind for kind in kinds if kind.get("type") not in {"number", "string"}]
    return {**value, "anyOf": [*_NUMBER["anyOf"], *kept]}

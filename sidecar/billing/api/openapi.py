"""`GET /openapi.json`: OpenAPI 3.1 out of the list of endpoints and the models behind them."""

from __future__ import annotations

import re
from functools import cache
from http import HTTPStatus
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from sidecar import __version__
from sidecar.billing.api.routes import CSV, ENDPOINTS, JSON, PROBLEM, Endpoint
from sidecar.billing.api.shapes import Problem

_REF = "#/components/schemas/{model}"
_Key = tuple[Any, JsonSchemaMode]


@cache
def document() -> dict[str, Any]:
    """The whole description."""
    shapes = _shapes()
    schemas, definitions = TypeAdapter.json_schemas(
        [(index, mode, TypeAdapter(shape)) for index, (shape, mode) in enumerate(shapes)], ref_template=_REF
    )
    found = {shape: schemas[index, shapes[index][1]] for index, shape in enumerate(_keys(shapes))}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, found)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Outcome sidecar: billing",
            "version": __version__,
            "description": "The ledger of outcomes: takes events, makes invoices. Amounts are decimal texts.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"bearer": []}, {}],
    }


def _shapes() -> list[_Key]:
    """Every shape that is taken ("validation") or answered ("serialization"), once."""
    found: list[_Key] = [(Problem, "serialization")]
    for endpoint in ENDPOINTS:
        found += [(shape, "validation") for shape in endpoint.body.values()]
        found += [(shape, "serialization") for shape in endpoint.answers.values()]
    once: list[_Key] = []
    for key in found:
        if key not in once:
            once.append(key)
    return once


def _keys(shapes: list[_Key]) -> list[str]:
    return [_name(shape, mode) for shape, mode in shapes]


def _name(shape: Any, mode: Literal["validation", "serialization"]) -> str:
    return f"{mode}:{shape!r}"


def _operation(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", endpoint.path)
    ]
    parameters += [
        {"name": name, "in": "query", "required": needed, "description": meaning, "schema": {"type": "string"}}
        for name, meaning, needed in endpoint.query
    ]
    answers: dict[str, Any] = {}
    for status, shape in endpoint.answers.items():
        content = {JSON: {"schema": schemas[_name(shape, "serialization")]}}
        if endpoint.csv:
            content[CSV] = {"schema": {"type": "string"}}
        answers[str(status)] = {"description": HTTPStatus(status).phrase, "content": content}
    for status in sorted({*endpoint.refusals, 401, 503}):
        problem = {PROBLEM: {"schema": schemas[_name(Problem, "serialization")]}}
        answers[str(status)] = {"description": HTTPStatus(status).phrase, "content": problem}
    found: dict[str, Any] = {
        "operationId": endpoint.handler.__name__,
        "summary": endpoint.summary,
        "parameters": parameters,
        "responses": answers,
    }
    if endpoint.body:
        content = {kind: {"schema": schemas[_name(shape, "validation")]} for kind, shape in endpoint.body.items()}
        found["requestBody"] = {"required": True, "content": content}
    return found

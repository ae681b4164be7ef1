"""What is wrong with a YAML file, in sentences with lines: pydantic's errors in our words, with what was perhaps meant.

Plans and their tests are read alike: a tree that remembers its lines (`tree.py`), a strict model, and these sentences.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sidecar.policy.tree import Path, Tree


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with a plan; `line` counts from 1."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class FaultError(ValueError):
    """A fault at `path` inside the mapping whose model found it."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


def problems_of(error: ValidationError, name: str, tree: Tree, root: type[BaseModel]) -> Iterator[Problem]:
    """Every error of validating `tree.value` as `root`, at the line of the value (or of the mapping that lacks it)."""
    for detail in error.errors():
        path = tuple(part for part in detail["loc"] if part != "[key]")
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, FaultError):
            path = (*path, *cause.path)
        message = _message(path, detail, cause, root)
        path = _written(tree, path)
        place = path[:-1] if detail["type"] in {"missing", "extra_forbidden"} else path
        yield Problem(name, tree.line(path), f"{shown(place)}: {message}")


def _written(tree: Tree, path: Path) -> Path:
    """A path as the file has it: one mapping where a list may stand is no list there."""
    kept: Path = ()
    for part in path:
        if isinstance(part, int) and (*kept, part) not in tree.lines and kept in tree.lines:
            continue
        kept = (*kept, part)
    return kept


def _message(path: Path, detail: ErrorDetails, cause: object, root: type[BaseModel]) -> str:
    kind, given = detail["type"], detail.get("input")
    if isinstance(cause, ValueError):
        return str(cause)
    if kind == "extra_forbidden":
        known = _fields_at(root, path[:-1])
        return f"unknown field {path[-1]!r}{nearest(str(path[-1]), known)}"
    if kind == "missing":
        return f"{path[-1]} is missing"
    if kind == "literal_error":
        allowed = _allowed(root, path)
        listed = f"one of {', '.join(allowed)}" if len(allowed) > 1 else "".join(allowed)
        return f"{_quoted(given)} is not allowed: write {listed}{nearest(str(given), allowed)}"
    if kind == "string_pattern_mismatch":
        return f"{_quoted(given)} is no name: write letters, digits and _ (ids also . and -), at most 64"
    if kind in _WANTED:
        return f"{_WANTED[kind]} is needed, not {_quoted(given)}"
    return detail["msg"]


_WANTED = {
    "string_type": "a text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}


def _quoted(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?` when something known is close; words are compared without regard to case."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {by_lower[close[0]]}?"
    return ""


def _fields_at(root: type[BaseModel], path: Path) -> list[str]:
    """The fields of the model at a path of the file."""
    model = _annotation_at(root, path)
    return list(model.model_fields) if _is_model(model) else []


def _allowed(root: type[BaseModel], path: Path) -> list[str]:
    """The values of the Literal at a path of the file."""
    annotation = _annotation_at(root, path)
    return [str(value) for value in get_args(annotation)] if get_origin(annotation) is Literal else []


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _annotation_at(root: type[BaseModel], path: Path) -> Any:
    here: Any = root
    for part in path:
        if _is_model(here):
            info = here.model_fields.get(part)
            here = _bare(info.annotation) if info else None
        elif isinstance(part, int) and get_origin(here) is list:
            here = _bare(get_args(here)[0])
        else:
            return None
    return here


def _bare(annotation: Any) -> Any:
    """An annotation without `Annotated` and `| None`."""
    while True:
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
        elif get_origin(annotation) in {Union, types.UnionType}:
            annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
        else:
            return annotation


def shown(path: Path) -> str:
    """A path as people write it: `charges[0].tiers[1].up_to`, without the `rate_plan` that all have in common."""
    text = ""
    for part in path[1:] if path[:1] == ("rate_plan",) else path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".") or ("rate_plan" if path else "plan")

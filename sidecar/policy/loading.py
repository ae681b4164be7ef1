"""Reading a plan: every problem at once, each with its line and what to change; or a `LoadedPlan`."""

from __future__ import annotations

import difflib
import hashlib
import types
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path as FilePath
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sidecar.policy.crosscheck import crosscheck
from sidecar.policy.fields import field_faults
from sidecar.policy.plan import Path, PlanFaultError, PlanFile, RatePlan
from sidecar.policy.rules import Rules, builtin_rules
from sidecar.policy.terms import Terms
from sidecar.policy.tree import Tree, read_tree

PROBLEMS_MAX = 200


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with a plan; `line` counts from 1."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class PlanError(ValueError):
    """A plan that cannot be used; `problems` are all the reasons, by line."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class LoadedPlan:
    """A checked plan: `plan` (the model), `name`, `digest` (`sha256:…` of the file's bytes), `terms`, `rules`."""

    def __init__(self, plan: RatePlan, source: bytes) -> None:
        self.plan = plan
        self.source = source
        self.name = plan.name
        self.digest = "sha256:" + hashlib.sha256(source).hexdigest()

    @cached_property
    def terms(self) -> Terms:
        """What the plan says about sessions, in milliseconds."""
        config = self.plan.session_config
        return Terms(
            plan=self.name,
            digest=self.digest,
            timeout_ms=max(1, _whole_ms(config.timeout_minutes, 60_000)),
            settle_ms=_whole_ms(config.settle_minutes, 60_000),
            reversal_ms=_whole_ms(config.reversal_hours, 3_600_000),
            inconclusive_policy=config.inconclusive_policy,
            incomplete_policy=config.incomplete_policy,
            on_return=config.on_return,
        )

    @cached_property
    def rules(self) -> Rules:
        """The rules of `signals`, or the built-in ones when the plan has none."""
        signals = self.plan.signals
        return Rules(builtin_rules() if signals is None else signals)


def load_plan(source: bytes, name: str) -> LoadedPlan:
    """Check a plan (YAML or JSON). `name` is the file's, for the problems. Raises PlanError with every problem."""
    tree = read_tree(source)
    problems = {Problem(name, line, message) for line, message in tree.faults}
    plan = None
    if tree.value is not None or not problems:
        try:
            plan = PlanFile.model_validate(tree.value).rate_plan
        except ValidationError as error:
            problems.update(_problem(name, tree, detail) for detail in error.errors())
        content = tree.value.get("rate_plan") if isinstance(tree.value, dict) else None
        for path, message in (*crosscheck(content), *field_faults(content)):
            place = ("rate_plan", *path)
            problems.add(Problem(name, tree.line(place), f"{_shown(place)}: {message}"))
    if plan is None or problems:
        raise PlanError(sorted(problems)[:PROBLEMS_MAX])
    return LoadedPlan(plan, source)


@lru_cache(maxsize=1)
def builtin_plan() -> LoadedPlan:
    """The plan that is used when none is named: one price per resolution, 100 free."""
    source = resources.files("sidecar.policy").joinpath("builtin/fin.yaml").read_bytes()
    return load_plan(source, "built-in plan")


def check_files(paths: Iterable[str]) -> list[Problem]:
    """Every problem of every file; a file that cannot be read is a problem too."""
    problems: list[Problem] = []
    for path in paths:
        try:
            load_plan(FilePath(path).read_bytes(), path)
        except OSError as error:
            problems.append(Problem(path, 1, f"cannot be read: {error.strerror}"))
        except PlanError as error:
            problems.extend(error.problems)
    return problems


def _whole_ms(amount: Decimal, unit_ms: int) -> int:
    return int((amount * unit_ms).to_integral_value())


def _problem(name: str, tree: Tree, detail: ErrorDetails) -> Problem:
    """One of pydantic's errors in our words, at the line of the value (or of the mapping that lacks it)."""
    path = tuple(part for part in detail["loc"] if part != "[key]")
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, PlanFaultError):
        path = (*path, *cause.path)
    message = _message(path, detail, cause)
    place = path[:-1] if detail["type"] in {"missing", "extra_forbidden"} else path
    line = tree.line(path)
    return Problem(name, line, f"{_shown(place)}: {message}")


def _message(path: Path, detail: ErrorDetails, cause: object) -> str:
    kind, given = detail["type"], detail.get("input")
    if isinstance(cause, ValueError):
        return str(cause)
    if kind == "extra_forbidden":
        known = _fields_at(path[:-1])
        return f"unknown field {path[-1]!r}{_nearest(str(path[-1]), known)}"
    if kind == "missing":
        return f"{path[-1]} is missing"
    if kind == "literal_error":
        allowed = _allowed(path)
        listed = f"one of {', '.join(allowed)}" if len(allowed) > 1 else "".join(allowed)
        return f"{_quoted(given)} is not allowed: write {listed}{_nearest(str(given), allowed)}"
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


def _nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?` when something known is close; words are compared without regard to case."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {by_lower[close[0]]}?"
    return ""


def _fields_at(path: Path) -> list[str]:
    """The fields of the model at a path of the file."""
    model = _annotation_at(path)
    return list(model.model_fields) if _is_model(model) else []


def _allowed(path: Path) -> list[str]:
    """The values of the Literal at a path of the file."""
    annotation = _annotation_at(path)
    return [str(value) for value in get_args(annotation)] if get_origin(annotation) is Literal else []


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _annotation_at(path: Path) -> Any:
    here: Any = PlanFile
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


def _shown(path: Path) -> str:
    """A path as people write it: `charges[0].tiers[1].up_to`, without the `rate_plan` that all have in common."""
    text = ""
    for part in path[1:] if path[:1] == ("rate_plan",) else path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".") or ("rate_plan" if path else "plan")

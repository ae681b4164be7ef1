"""Reading a plan: every problem at once, each with its line and what to change; or a `LoadedPlan`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from decimal import Decimal
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path as FilePath

from pydantic import ValidationError

from sidecar.policy.crosscheck import crosscheck
from sidecar.policy.faults import Problem, problems_of, shown
from sidecar.policy.fields import field_faults
from sidecar.policy.plan import PlanFile, RatePlan
from sidecar.policy.rules import Rules, builtin_rules
from sidecar.policy.terms import Terms
from sidecar.policy.tree import read_tree
from sidecar.policy.values import value_faults

PROBLEMS_MAX = 200


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
            problems.update(problems_of(error, name, tree, PlanFile))
        content = tree.value.get("rate_plan") if isinstance(tree.value, dict) else None
        for path, message in (*crosscheck(content), *field_faults(content), *value_faults(content)):
            place = ("rate_plan", *path)
            problems.add(Problem(name, tree.line(place), f"{shown(place)}: {message}"))
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

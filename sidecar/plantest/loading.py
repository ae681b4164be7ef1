"""Test files: found by what is in them, read with the lines of everything, every mistake told at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from sidecar.intake.webhooks import endpoints
from sidecar.observer.locators import parse_locators
from sidecar.plantest.conversation import Conversation, ConversationFile, Locating
from sidecar.policy.faults import Problem, problems_of
from sidecar.policy.loading import LoadedPlan, PlanError, load_plan
from sidecar.policy.tree import Path as Place
from sidecar.policy.tree import Tree, read_tree

SUFFIXES = {".yaml", ".yml"}


@dataclass(frozen=True, slots=True)
class Case:
    """One conversation of a file, with the plan that judges it."""

    file: str
    number: int  # from 0
    conversation: Conversation
    plan: LoadedPlan
    locating: Locating
    tree: Tree

    def line(self, *place: str | int) -> int:
        """The line of a part of the conversation."""
        return self.tree.line(("conversations", self.number, *place))


@dataclass(frozen=True, slots=True)
class Suite:
    """What was found: the tests, and what is wrong with files that should hold some."""

    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]
    files: int


def load_suite(paths: Iterable[Path], instead: Path | None = None) -> Suite:
    """Every test under the paths; `instead` is a plan to judge all of them by."""
    cases: list[Case] = []
    problems: list[Problem] = []
    files = 0
    for path in _files(paths):
        try:
            source = path.read_bytes()
        except OSError as error:
            problems.append(Problem(str(path), 1, f"cannot be read: {error.strerror}"))
            continue
        tree = read_tree(source)
        if isinstance(tree.value, dict) and "rate_plan" in tree.value:
            continue  # a plan, beside its tests
        files += 1
        found = _load(path, tree, instead)
        if isinstance(found, list):
            problems += found
        else:
            cases += found
    return Suite(tuple(cases), tuple(problems), files)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
        else:
            yield path


def _load(path: Path, tree: Tree, instead: Path | None) -> list[Problem] | tuple[Case, ...]:
    name = str(path)
    problems = [Problem(name, line, message) for line, message in tree.faults]
    if problems:
        return problems
    try:
        file = ConversationFile.model_validate(tree.value)
    except ValidationError as error:
        return sorted(problems_of(error, name, tree, ConversationFile))
    plan_path = instead or path.parent / file.plan
    problems += [
        Problem(name, tree.line(("settings", field)), f"settings.{field}: {fault}")
        for field in ("session_keys", "customer")
        if (fault := _locator_fault(getattr(file.settings, field)))
    ]
    try:
        endpoints(dict.fromkeys(file.settings.webhook_conversations, ()), file.settings.webhook_conversations)
    except ValueError as error:
        problems.append(Problem(name, tree.line(("settings", "webhook_conversations")), f"settings: {error}"))
    try:
        plan = load_plan(plan_path.read_bytes(), str(plan_path))
    except OSError as error:
        return [*problems, Problem(name, tree.line(("plan",)), f"plan: {plan_path} cannot be read: {error.strerror}")]
    except PlanError as error:
        return [*problems, *error.problems]
    if problems:
        return problems
    problems += _unknown_ids(name, tree, file, plan) if instead is None else []
    return problems or tuple(
        Case(name, number, conversation, plan, file.settings, tree)
        for number, conversation in enumerate(file.conversations)
    )


def _locator_fault(line: str) -> str | None:
    try:
        parse_locators(line)
    except ValueError as error:
        return str(error)
    return None


def _unknown_ids(name: str, tree: Tree, file: ConversationFile, plan: LoadedPlan) -> list[Problem]:
    """Metrics and charges that the plan does not have could never count anything: a slip, not an expectation."""
    known = {
        "metrics": {metric.id for metric in plan.plan.metrics},
        "charges": {charge.id for charge in plan.plan.all_charges()},
    }
    problems = []
    for number, conversation in enumerate(file.conversations):
        places: list[tuple[Place, int]] = [(("expect",), len(conversation.expect))]
        places += [
            (("steps", n, "expect"), len(step.expect)) for n, step in enumerate(conversation.steps) if step.expect
        ]
        for place, count in places:
            sessions = conversation.expect if place == ("expect",) else conversation.steps[int(place[1])].expect or []
            for index in range(count):
                for field, ids in known.items():
                    for each in set(getattr(sessions[index], field) or []) - ids:
                        line = tree.line(("conversations", number, *place, index, field))
                        listed = ", ".join(sorted(ids)) or "none"
                        problems.append(Problem(name, line, f"{field}: the plan has no {each!r}; there are: {listed}"))
    return problems

"""`sidecar plan test`: plays every conversation, prints what differs, and says how many passed."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from sidecar.embedded.redis import RedisBinaryMissingError
from sidecar.plantest.loading import Case, Suite, load_suite
from sidecar.plantest.seen import Difference, Seen, compare
from sidecar.plantest.server import own_redis
from sidecar.plantest.stage import Look, Stage, StageError
from sidecar.sessions.store import Store

OK, DIFFERENT, WRONG_USAGE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Miss:
    """A difference, the line of what was expected, and the step (from 0; None: the end) after which it was seen."""

    line: int
    step: int | None
    difference: Difference


@dataclass(frozen=True, slots=True)
class Result:
    """One conversation played: `misses` is empty when all is as expected; `failed` says why it could not be played."""

    case: Case
    misses: tuple[Miss, ...]
    seen: tuple[Seen, ...]
    notes: tuple[str, ...]
    failed: str | None = None

    @property
    def passed(self) -> bool:
        """Whether all is as expected."""
        return not self.misses and self.failed is None

    def to_dict(self) -> dict[str, Any]:
        """As `--json` shows it."""
        return {
            "file": self.case.file,
            "line": self.case.line(),
            "name": self.case.conversation.name,
            "plan": {"name": self.case.plan.name, "digest": self.case.plan.digest},
            "passed": self.passed,
            "failed": self.failed,
            "differences": [
                {
                    "line": miss.line,
                    "step": None if miss.step is None else miss.step + 1,
                    "session": None if miss.difference.session is None else miss.difference.session + 1,
                    "field": miss.difference.field,
                    "expected": miss.difference.expected,
                    "seen": miss.difference.seen,
                }
                for miss in self.misses
            ],
            "notes": list(self.notes),
            "sessions": [seen.to_dict() for seen in self.seen],
        }


def run(
    paths: Sequence[str],
    *,
    plan: str | None = None,
    only: str | None = None,
    verbose: bool = False,
    as_json: bool = False,
) -> int:
    """Play what is under `paths`; 0 when all is as expected, 1 when something differs, 2 with nothing to play."""
    missing = [path for path in paths if not Path(path).exists()]
    if missing:
        print(f"sidecar: {', '.join(missing)}: no such file or directory", file=sys.stderr)
        return WRONG_USAGE
    suite = load_suite(map(Path, paths), Path(plan) if plan else None)
    for problem in suite.problems:
        print(problem, file=sys.stderr)
    cases = [case for case in suite.cases if only is None or only.lower() in case.conversation.name.lower()]
    if not cases and not suite.problems:
        what = f"no conversation has {only!r} in its name" if only else "no conversations are there"
        print(f"sidecar: {what}: {', '.join(paths)}; docs/plans.md shows how they are written", file=sys.stderr)
        return WRONG_USAGE
    try:
        results = asyncio.run(play(cases))
    except (RedisBinaryMissingError, RuntimeError) as error:
        print(f"sidecar: {error}", file=sys.stderr)
        return DIFFERENT
    if as_json:
        print(json.dumps(_document(suite, results), indent=2, default=str))
    else:
        _report(results, suite, sys.stdout, verbose=verbose)
    return OK if all(result.passed for result in results) and not suite.problems else DIFFERENT


async def play(cases: Sequence[Case]) -> list[Result]:
    """Every case on one server, each as a tenant of its own."""
    if not cases:
        return []
    async with own_redis() as redis:
        return [await _play(case, Store(redis, f"test-{number}")) for number, case in enumerate(cases)]


async def _play(case: Case, store: Store) -> Result:
    stage = Stage(case, store)
    try:
        looks = await stage.play()
    except StageError as error:
        return Result(case, (), (), tuple(stage.notes), str(error))
    misses = [miss for look in looks for miss in _misses(case, look)]
    return Result(case, tuple(misses), looks[-1].seen, tuple(stage.notes))


def _misses(case: Case, look: Look) -> list[Miss]:
    place: tuple[str | int, ...] = ("expect",) if look.step is None else ("steps", look.step, "expect")
    misses = []
    for difference in compare(look.expected, look.seen):
        where = place
        if difference.session is not None:
            listed = case.tree.lines.get(("conversations", case.number, *place, difference.session)) is not None
            where = (*place, difference.session, difference.field) if listed else (*place, difference.field)
        misses.append(Miss(case.line(*where), look.step, difference))
    return misses


def _document(suite: Suite, results: Sequence[Result]) -> dict[str, Any]:
    passed = sum(result.passed for result in results)
    return {
        "passed": passed,
        "failed": len(results) - passed,
        "problems": [
            {"file": problem.file, "line": problem.line, "message": problem.message} for problem in suite.problems
        ],
        "conversations": [result.to_dict() for result in results],
    }


def _report(results: Sequence[Result], suite: Suite, out: TextIO, *, verbose: bool) -> None:
    for result in results:
        case = result.case
        print(f"{'ok  ' if result.passed else 'FAIL'}  {case.file}:{case.line()}  {case.conversation.name}", file=out)
        if result.failed:
            print(f"      {result.failed}", file=out)
        for miss in result.misses:
            at = "" if miss.step is None else f"after step {miss.step + 1}, "
            print(f"      {case.file}:{miss.line}: {at}{miss.difference}", file=out)
        if verbose or not result.passed:
            _tell(result, out)
    passed = sum(result.passed for result in results)
    broken = f"; errors in the files: {len(suite.problems)}" if suite.problems else ""
    where = "1 file" if suite.files == 1 else f"{suite.files} files"
    print(f"{passed} of {len(results)} conversations in {where} end as expected{broken}", file=out)


def _tell(result: Result, out: TextIO) -> None:
    for note in result.notes:
        print(f"      note: {note}", file=out)
    for number, seen in enumerate(result.seen, 1):
        print(f"      session {number}: {seen.fields['state']}", file=out)
        for sentence in seen.explanation:
            print(f"        {sentence}", file=out)

"""The plan that is in force, followed as its file changes. A broken new version is refused and the old one stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sidecar.policy.loading import LoadedPlan, PlanError, load_plan

FORMER_MAX = 8  # plans that were in force before, for the sessions that opened under them


class CurrentPlan:
    """`loaded` is the plan in force; `problems` is empty, or why the file's newest version was refused.

    `judge` says what is wrong with a plan that is right by itself but does not go with this deployment's settings.
    `former` are the plans that it replaced, the last one first: a session keeps the rules under which it opened.
    """

    def __init__(
        self,
        loaded: LoadedPlan,
        path: Path | None,
        problems: Sequence[str] = (),
        *,
        judge: Callable[[LoadedPlan], list[str]] = lambda _plan: [],
        former: Sequence[LoadedPlan] = (),
    ) -> None:
        self.loaded = loaded
        self.former = tuple(plan for plan in former if plan.digest != loaded.digest)[:FORMER_MAX]
        self.problems = list(problems)
        self.refused = 0
        self._path = path
        self._judge = judge
        self._seen = self._stamp()

    def refresh(self, *, force: bool = False) -> bool:
        """Read the file again if it changed (or `force`); True when another plan came into force."""
        if self._path is None:
            return False
        stamp = self._stamp()
        if stamp == self._seen and not force:
            return False
        self._seen = stamp
        try:
            loaded = load_plan(self._path.read_bytes(), str(self._path))
        except PlanError as error:
            self._refuse([str(problem) for problem in error.problems])
            return False
        except OSError as error:
            self._refuse([f"{self._path} cannot be read: {error.strerror}"])
            return False
        if problems := self._judge(loaded):
            self._refuse(problems)
            return False
        self.problems = []
        changed = loaded.digest != self.loaded.digest
        if changed:
            former = (self.loaded, *self.former)
            self.former = tuple(plan for plan in former if plan.digest != loaded.digest)[:FORMER_MAX]
        self.loaded = loaded
        return changed

    def _refuse(self, problems: list[str]) -> None:
        self.problems = problems
        self.refused += 1

    def _stamp(self) -> tuple[int, int, int] | None:
        """Identity, time and size: a ConfigMap is replaced by moving a symbolic link, which changes the inode."""
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

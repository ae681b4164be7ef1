"""What was decided beside what people say it was: a confusion matrix. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DISAGREEMENTS_MAX = 1_000
FREE = frozenset({"ESCALATED_TO_HUMAN", "INCONCLUSIVE", "UNRESOLVED", "OPEN"})


@dataclass(frozen=True, slots=True)
class Decision:
    """The newest session of a conversation: `outcome` is its last posted one, OPEN while there is none."""

    session_id: str
    outcome: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One conversation of which people say something else."""

    conversation: str
    label: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class Agreement:
    """`matrix` counts (label, decided); `missing` are conversations of which nothing is known."""

    matrix: Mapping[tuple[str, str], int]
    disagreements: tuple[Disagreement, ...]
    missing: tuple[str, ...]
    blank: int = 0

    @property
    def compared(self) -> int:
        """Conversations of which both are known."""
        return sum(self.matrix.values())

    @property
    def share(self) -> float | None:
        """The share on which both agree; None when nothing could be compared."""
        same = sum(count for (label, decided), count in self.matrix.items() if label == decided)
        return same / self.compared if self.compared else None

    @property
    def names(self) -> list[str]:
        """Every outcome, the more frequent first."""
        total: Counter[str] = Counter()
        for (label, decided), count in self.matrix.items():
            total[label] += count
            total[decided] += count
        return sorted(total, key=lambda name: (-total[name], name))

    def precision(self, name: str) -> float | None:
        """Of those decided to be `name`, the share of which people say so."""
        return self._share(name, [(label, decided) for label, decided in self.matrix if decided == name])

    def recall(self, name: str) -> float | None:
        """Of those of which people say `name`, the share that was decided so."""
        return self._share(name, [(label, decided) for label, decided in self.matrix if label == name])

    def _share(self, name: str, cells: Sequence[tuple[str, str]]) -> float | None:
        total = sum(self.matrix[cell] for cell in cells)
        return self.matrix.get((name, name), 0) / total if total else None

    @property
    def wrongly_resolved(self) -> int:
        """Decided to be a resolution of any name, of which people say that it was none: charged, perhaps wrongly."""
        return sum(count for (label, decided), count in self.matrix.items() if label in FREE and decided not in FREE)

    @property
    def wrongly_free(self) -> int:
        """The other way round: people say it was a resolution, and nothing was charged."""
        return sum(count for (label, decided), count in self.matrix.items() if decided in FREE and label not in FREE)

    def to_dict(self) -> dict[str, Any]:
        """As `--json` shows it."""
        matrix: dict[str, dict[str, int]] = {}
        for (label, decided), count in sorted(self.matrix.items()):
            matrix.setdefault(label, {})[decided] = count
        return {
            "compared": self.compared,
            "agreement": self.share,
            "resolved_but_people_say_not": self.wrongly_resolved,
            "free_but_people_say_resolved": self.wrongly_free,
            "matrix": matrix,
            "outcomes": {name: {"precision": self.precision(name), "recall": self.recall(name)} for name in self.names},
            "disagreements": [
                {
                    "conversation": each.conversation,
                    "label": each.label,
                    "decided": each.decision.outcome,
                    "session_id": each.decision.session_id,
                    "reason": each.decision.reason,
                }
                for each in self.disagreements
            ],
            "missing": list(self.missing),
            "blank": self.blank,
        }

    def lines(self, listed: int) -> Iterator[str]:
        """As people read it: the matrix, the shares, the first `listed` disagreements."""
        names = self.names
        width = max([len("PEOPLE SAY"), *map(len, names)])
        yield "  ".join(["PEOPLE SAY".ljust(width), *(f"DECIDED {name}" for name in names), "RECALL"])
        for label in names:
            counts = [str(self.matrix.get((label, name), 0)).rjust(len(f"DECIDED {name}")) for name in names]
            yield "  ".join([label.ljust(width), *counts, _percent(self.recall(label)).rjust(6)])
        precisions = [_percent(self.precision(name)).rjust(len(f"DECIDED {name}")) for name in names]
        yield "  ".join(["precision".ljust(width), *precisions])
        yield ""
        yield f"{_percent(self.share)} of {self.compared} conversations are decided as people say."
        yield f"resolved, but people say not: {self.wrongly_resolved}"
        yield f"free, but people say resolved: {self.wrongly_free}"
        if self.missing:
            yield f"not known: {len(self.missing)}, for example {', '.join(self.missing[:3])}"
        if self.blank:
            yield f"rows without a conversation or a label: {self.blank}"
        for each in self.disagreements[:listed]:
            why = f" ({each.decision.reason})" if each.decision.reason else ""
            yield (
                f"{each.conversation}: people say {each.label}, decided {each.decision.outcome}{why}, "
                f"{each.decision.session_id}"
            )
        if len(self.disagreements) > listed:
            yield f"… and {len(self.disagreements) - listed} more; --list N shows N, --json all"


def agreement(labels: Mapping[str, str], decisions: Mapping[str, Decision], *, blank: int = 0) -> Agreement:
    """Compare; disagreements in the order of the labels, at most 1,000 are kept."""
    matrix: Counter[tuple[str, str]] = Counter()
    disagreements: list[Disagreement] = []
    missing: list[str] = []
    for conversation, label in labels.items():
        decision = decisions.get(conversation)
        if decision is None:
            missing.append(conversation)
            continue
        matrix[label, decision.outcome] += 1
        if label != decision.outcome and len(disagreements) < DISAGREEMENTS_MAX:
            disagreements.append(Disagreement(conversation, label, decision))
    return Agreement(matrix, tuple(disagreements), tuple(missing), blank)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}%"

"""Precision and recall of "these two calls are of one session", by kind of conversation.

Calls that are equal in all that an observer may look at (the same opening with the same answer, under the same key) may
stand in for each other: which of two such calls belongs to which conversation nobody can tell, nor does it matter.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from bench.stitch.talk import Call

Label = tuple[int, int]


@dataclass(slots=True)
class Score:
    """Pairs of calls. `missed` and `wrong` name the conversations that make up what is not perfect."""

    conversations: int = 0
    calls: int = 0
    true: int = 0
    found: int = 0
    right: int = 0
    turns: int = 0
    turns_true: int = 0
    guessed: int = 0  # pairs of two conversations that were put together where the wire leaves only a guess
    true_all: int = 0  # as `true`, `found` and `right`, what is left to a guess counted like the rest
    found_all: int = 0
    right_all: int = 0
    missed: Counter[int] = field(default_factory=Counter)
    wrong: Counter[tuple[int, int]] = field(default_factory=Counter)

    @property
    def precision(self) -> float:
        """Of the pairs that were put together, those that belong together."""
        return self.right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        """Of the pairs that belong together, those that were put together."""
        return self.right / self.true if self.true else 1.0

    @property
    def precision_all(self) -> float:
        """The same, guesses counted."""
        return self.right_all / self.found_all if self.found_all else 1.0

    @property
    def recall_all(self) -> float:
        """The same, guesses counted."""
        return self.right_all / self.true_all if self.true_all else 1.0


def score(calls: Sequence[Call], sessions: Sequence[str | None], turns: Mapping[str, int]) -> dict[str, Score]:
    """By kind, and under `all`; `sessions` of the calls, None for those that were put into none."""
    pairs = list(zip(calls, sessions, strict=True))
    found_or_alone = [session or (f"none {n}" if call.opens else None) for n, (call, session) in enumerate(pairs)]
    kept = [(call, session) for (call, _), session in zip(pairs, found_or_alone, strict=True) if session is not None]
    labels = _interchanged([call for call, _ in kept], [session for _, session in kept], [c.label for c, _ in kept])
    scores: dict[str, Score] = defaultdict(Score)
    by_session: dict[str, Counter[Label]] = defaultdict(Counter)
    kinds: dict[int, str] = {}
    ends: dict[int, set[str]] = defaultdict(set)
    guesses: set[Label] = set()
    for (call, session), label in zip(kept, labels, strict=True):
        by_session[session][label] += 1
        kinds[call.conversation] = call.kind
        ends[label[0]].add(session)
        if call.guess:
            guesses.add(label)
        for name in (call.kind, "all"):
            scores[name].calls += 1
            scores[name].turns_true += call.user_turn
    for label, n in Counter(labels).items():
        _add_label(scores, kinds[label[0]], label, _pairs(n), by_session.values())
    for found in by_session.values():
        _add_session(scores, kinds, found, guesses)
    truths = _interchanged([call for call, _ in kept], [session for _, session in kept], [c.truth for c, _ in kept])
    _add_all(scores, kinds, truths, [session for _, session in kept])
    for conversation, kind in kinds.items():
        for name in (kind, "all"):
            scores[name].conversations += 1
            scores[name].turns += sum(turns.get(session, 0) for session in ends[conversation])
    return dict(scores)


def _add_label(
    scores: dict[str, Score], kind: str, label: Label, pairs: int, sessions: Iterable[Counter[Label]]
) -> None:
    together = sum(_pairs(found[label]) for found in sessions)
    for name in (kind, "all"):
        scores[name].true += pairs
        if together < pairs:
            scores[name].missed[label[0]] += pairs - together


def _add_session(
    scores: dict[str, Score], kinds: Mapping[int, str], found: Counter[Label], guesses: AbstractSet[Label]
) -> None:
    labels = list(found)
    for n, one in enumerate(labels):
        for name in (kinds[one[0]], "all"):
            scores[name].found += _pairs(found[one])
            scores[name].right += _pairs(found[one])
        for other in labels[n + 1 :]:
            if one[0] == other[0]:
                continue  # parts of one conversation, of which the wire does not tell: either way is right
            for name in {kinds[one[0]], kinds[other[0]], "all"}:
                if one in guesses or other in guesses:
                    scores[name].guessed += found[one] * found[other]
                    continue
                scores[name].found += found[one] * found[other]
                scores[name].wrong[one[0], other[0]] += found[one] * found[other]


def _add_all(
    scores: dict[str, Score], kinds: Mapping[int, str], labels: Sequence[Label], sessions: Sequence[str]
) -> None:
    """Every pair, whether the wire tells or not; but for parts that begin without any link."""
    for label, n in Counter(labels).items():
        for name in (kinds[label[0]], "all"):
            scores[name].true_all += _pairs(n)
    by_session: dict[str, Counter[Label]] = defaultdict(Counter)
    for label, session in zip(labels, sessions, strict=True):
        by_session[session][label] += 1
    for found in by_session.values():
        for n, one in enumerate(found):
            for name in (kinds[one[0]], "all"):
                scores[name].found_all += _pairs(found[one])
                scores[name].right_all += _pairs(found[one])
            for other in list(found)[n + 1 :]:
                if one[0] != other[0]:
                    for name in {kinds[one[0]], kinds[other[0]], "all"}:
                        scores[name].found_all += found[one] * found[other]


def _interchanged(calls: Sequence[Call], sessions: Sequence[str], of_calls: Sequence[Label]) -> list[Label]:
    """The calls' labels, those of equal calls exchanged so that each goes to where the rest of its session belongs."""
    labels = list(of_calls)
    alike: dict[str, list[int]] = defaultdict(list)
    others: dict[str, Counter[Label]] = defaultdict(Counter)
    for n, call in enumerate(calls):
        if call.alike:
            alike[call.alike].append(n)
        else:
            others[sessions[n]][labels[n]] += 1
    for members in alike.values():
        free = Counter(labels[n] for n in members)
        wishes = {
            n: next((label for label, _ in others[sessions[n]].most_common() if label in free), None) for n in members
        }
        left = []
        for n in members:
            wish = wishes[n]
            if wish is not None and free[wish] > 0:
                labels[n] = wish
                free[wish] -= 1
            else:
                left.append(n)
        for n, label in zip(left, list(free.elements()), strict=True):
            labels[n] = label
    return labels


def _pairs(n: int) -> int:
    return n * (n - 1) // 2


def table(scores: Mapping[str, Score]) -> str:
    """For people."""
    lines = [
        "| kind | conversations | calls | pairs | precision | recall | guessed wrong | precision, guesses counted "
        "| recall, guesses counted | user turns counted / true |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in sorted(scores.items(), key=lambda item: (item[0] == "all", item[0])):
        lines.append(
            f"| {name} | {one.conversations} | {one.calls} | {one.true} | {one.precision:.5f} | {one.recall:.5f} | "
            f"{one.guessed} | {one.precision_all:.5f} | {one.recall_all:.5f} | "
            f"{one.turns} / {one.turns_true} |"
        )
    return "\n".join(lines)

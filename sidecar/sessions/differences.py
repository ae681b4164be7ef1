"""Two judgements of the same traffic, side by side: the live plan's sessions and a candidate's. Pure.

Sessions are paired by what they began with: the same base (the conversation, or the first exchange) and the same
beginning. Where the plans cut a conversation differently, or one had begun before the candidate was there, a session
has no counterpart; such are counted apart. A pair is compared once both are final.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.sessions.states import OUTCOMES, State
from sidecar.sessions.view import SessionView, rfc3339

LISTED_MAX = 100
OPEN = "OPEN"


@dataclass(frozen=True, slots=True)
class Differences:
    """`matrix` counts (live outcome, candidate's) of pairs that are both final; `pending` pairs are not yet."""

    matrix: Mapping[tuple[str, str], int]
    pending: int
    only_live: int
    only_candidate: int
    listed: tuple[tuple[SessionView, SessionView], ...]
    different: int

    @property
    def same(self) -> int:
        """Pairs of which both plans say the same."""
        return sum(self.matrix.values()) - self.different

    def to_dict(self) -> dict[str, Any]:
        """As `GET /v1/candidate` shows it."""
        matrix: dict[str, dict[str, int]] = {}
        for (live, candidate), count in sorted(self.matrix.items()):
            matrix.setdefault(live, {})[candidate] = count
        return {
            "same": self.same,
            "different": self.different,
            "pending": self.pending,
            "only_live": self.only_live,
            "only_candidate": self.only_candidate,
            "matrix": matrix,
            "differences": [
                {
                    "conversation": live.conversation,
                    "session_id": live.id,
                    "started_at": rfc3339(live.started_ms),
                    "live": _side(live),
                    "candidate": _side(candidate),
                }
                for live, candidate in self.listed
            ],
        }


def differences(live: Iterable[SessionView], candidate: Sequence[SessionView]) -> Differences:
    """Compare; `live` are sessions begun since the oldest of the candidate's, or more."""
    since_ms = min((view.started_ms for view in candidate), default=0)
    others = {_beginning(view): view for view in live if candidate and view.started_ms >= since_ms}
    matrix: Counter[tuple[str, str]] = Counter()
    listed: list[tuple[SessionView, SessionView]] = []
    pending = only_candidate = different = 0
    for judged in candidate:
        ours = others.pop(_beginning(judged), None)
        if ours is None:
            only_candidate += 1
            continue
        verdicts = _verdict(ours), _verdict(judged)
        if OPEN in verdicts:
            pending += 1
            continue
        matrix[verdicts] += 1
        if verdicts[0] != verdicts[1]:
            different += 1
            if len(listed) < LISTED_MAX:
                listed.append((ours, judged))
    return Differences(matrix, pending, len(others), only_candidate, tuple(listed), different)


def posted_outcome(view: SessionView) -> str:
    """The outcome that a session was last posted with; OPEN while there is none."""
    if view.is_open:
        return OPEN
    return (view.outcome if view.state == State.RESOLVED else None) or OUTCOMES[view.state]


def _verdict(view: SessionView) -> str:
    """What billing would be told, as far as it decides about a charge."""
    outcome = posted_outcome(view)
    if view.is_open:
        return outcome
    if view.held or (not view.complete and view.terms.incomplete_policy == "HOLD"):
        return f"{outcome} (held)"
    if not view.complete and view.terms.incomplete_policy == "NO_CHARGE":
        return f"{outcome} (not billable)"
    return outcome


def _beginning(view: SessionView) -> tuple[str, int]:
    return view.base, view.started_ms


def _side(view: SessionView) -> dict[str, Any]:
    return {
        "outcome": _verdict(view),
        "confirmation": view.confirmation if view.state == State.RESOLVED else None,
        "reason": view.reason,
        "rules": [item.rule for item in view.evidence],
        "revision": view.revision,
    }

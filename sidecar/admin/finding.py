"""What `sidecar doctor` found: one part, whether it is as it must be, and what to change when it is not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `change` says what to do when it is not ok."""

    part: str
    verdict: Verdict
    says: str
    change: str = ""

    def to_dict(self) -> dict[str, str]:
        """As `--json` shows it."""
        return asdict(self)

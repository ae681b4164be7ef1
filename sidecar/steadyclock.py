"""A wall clock that is not believed at once when it jumps ahead.

A replica's mark follows its clock. One that is two hours ahead for a single heartbeat would end every open session;
so a jump ahead counts only once it has lasted for a minute of the monotonic clock. A step back is followed at once:
it only makes deadlines wait.
"""

from __future__ import annotations

SLACK_MS = 5_000
BELIEVED_AFTER_SECONDS = 60.0


class SteadyClock:
    """Times are Unix milliseconds of the wall clock, beside seconds of the monotonic one."""

    def __init__(self) -> None:
        self._seen: tuple[int, float] | None = None  # the last that was believed, and when
        self._ahead_since: float | None = None

    def believe(self, wall_ms: int, monotonic: float) -> int:
        """What the wall clock is believed to say, now that it says `wall_ms`."""
        if self._seen is not None:
            expected_ms = self._seen[0] + int((monotonic - self._seen[1]) * 1000)
            if wall_ms > expected_ms + SLACK_MS:
                if self._ahead_since is None:
                    self._ahead_since = monotonic
                if monotonic - self._ahead_since < BELIEVED_AFTER_SECONDS:
                    return expected_ms
        self._ahead_since = None
        self._seen = wall_ms, monotonic
        return wall_ms

"""The health paths, answered from memory: nothing behind the proxy can make a cluster restart the pod."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sidecar.proxy.answers import json_answer, text_answer
from sidecar.wire import framing
from sidecar.wire.framing import Head
from sidecar.wire.status import Slot, StatusPage

_PATHS: Final = frozenset([b"/livez", b"/readyz", b"/healthz"])
_METHODS: Final = frozenset([b"GET", b"HEAD"])
_VERBOSE: Final = frozenset([b"verbose", b"verbose=", b"verbose=1", b"verbose=true"])
_STATES: Final = {0: "unknown", 1: "ok", 2: "down"}
# Whether the hot path runs as machine code, as in the container image (docs/performance.md).
COMPILED: Final = not framing.__file__.endswith(".py")
# The observer beats once a second, at the lowest priority; this much silence is more than being slow.
STALLED_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Health:
    """Answers for the admin address. `observer_alive` is None when the observer is not ours to watch."""

    status: StatusPage
    mode: str
    capacity_bytes: int
    used_bytes: Callable[[], int]
    observer_alive: Callable[[], bool | None]

    def answer(self, head: Head) -> bytes | None:
        """The answer to a request for a health path; None for any other request."""
        path, _, query = head.target.partition(b"?")
        if path not in _PATHS or head.method not in _METHODS:
            return None
        if path != b"/livez" and not _VERBOSE.isdisjoint(query.split(b"&")):
            answer = json_answer(200, self.document(int(time.time() * 1000)))
        else:
            answer = text_answer(200, "ok")
        return answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if head.method == b"HEAD" else answer

    def document(self, now_ms: int) -> dict[str, Any]:
        """Each part's state, for people and `sidecar doctor`; `now_ms` is the Unix time."""
        get = self.status.get
        return {
            "status": "ok",
            "mode": self.mode,
            "parts": {
                "proxy": {"state": "ok", "pid": os.getpid(), "compiled": COMPILED},
                "observer": self._observer(now_ms),
                "redis": {"state": self._state(Slot.REDIS_STATE)},
                "billing": {"state": self._state(Slot.BILLING_STATE)},
                "plan": {"state": self._state(Slot.PLAN_STATE)},
                "journal": {"state": self._state(Slot.JOURNAL_STATE), "backlog": get(Slot.JOURNAL_BACKLOG)},
                "queue": self._queue(),
                "outbox": {"length": get(Slot.OUTBOX_LENGTH)},
            },
        }

    def _observer(self, now_ms: int) -> dict[str, Any]:
        beat_ms = self.status.get(Slot.OBSERVER_BEAT_MS)
        age_ms = max(0, now_ms - beat_ms) if beat_ms else None
        alive = self.observer_alive()
        if alive is False or (alive is None and not beat_ms):
            state = "down"
        elif age_ms is None or age_ms > STALLED_MS:
            state = "stalled"
        else:
            state = "ok"
        pid = self.status.get(Slot.OBSERVER_PID)
        starts = self.status.get(Slot.OBSERVER_STARTS)
        return {"state": state, "pid": pid, "starts": starts, "beat_age_ms": age_ms}

    def _queue(self) -> dict[str, Any]:
        used = self.used_bytes()
        return {
            "state": "ok" if used < self.capacity_bytes * 7 // 8 else "full",
            "used_bytes": used,
            "capacity_bytes": self.capacity_bytes,
            "records_dropped": self.status.get(Slot.RECORDS_DROPPED),
        }

    def _state(self, slot: Slot) -> str:
        return _STATES.get(self.status.get(slot), "unknown")

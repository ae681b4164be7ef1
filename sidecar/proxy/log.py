"""Log lines on stderr in the shape that the rest of the sidecar logs in, without its libraries.

For events of the process's life only: there is no line per request, so writing may block.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class Log:
    """`log.info("proxy_started", pid=1)` writes `{"event": "proxy_started", "pid": 1, "level": …, "timestamp": …}`."""

    def __init__(self, style: str = "json", level: str = "info", stream: TextIO | None = None) -> None:
        self._json = style == "json"
        self._least = _LEVELS.get(level.lower(), 20)
        self._stream = stream or sys.stderr

    def debug(self, event: str, **details: Any) -> None:
        """Of interest to developers."""
        self._write("debug", event, details)

    def info(self, event: str, **details: Any) -> None:
        """A normal step of life."""
        self._write("info", event, details)

    def warning(self, event: str, **details: Any) -> None:
        """Something to look at; the sidecar goes on."""
        self._write("warning", event, details)

    def error(self, event: str, **details: Any) -> None:
        """Something does not work."""
        self._write("error", event, details)

    def _write(self, level: str, event: str, details: dict[str, Any]) -> None:
        if _LEVELS[level] < self._least:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self._json:
            line = json.dumps({"event": event, **details, "level": level, "timestamp": now}, default=str)
        else:
            pairs = "".join(f" {key}={value}" for key, value in details.items())
            line = f"{now} [{level:<7}] {event}{pairs}"
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass  # nobody reads the log any more: traffic matters more

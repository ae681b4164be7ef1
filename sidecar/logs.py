"""Structured logs on stderr: JSON lines, or text for people at a terminal. `logged.py` lists every line."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from sidecar.logged import LINES

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_FRAMES_MAX = 20
# Local variables hold secrets and what people wrote, and an exception's own words often quote them.
_stacks = ExceptionDictTransformer(show_locals=False, max_frames=_FRAMES_MAX)


def resolve_format(log_format: str) -> str:
    """`auto` is text at a terminal, else JSON."""
    if log_format != "auto":
        return log_format
    return "text" if sys.stderr.isatty() else "json"


def configure(level: str, log_format: str) -> None:
    """Set up structlog for this process; of other libraries warnings, of what ends the process its kind and place."""
    chain: list[structlog.types.Processor] = [structlog.processors.add_log_level, _in_order, _where]
    chain.append(structlog.processors.JSONRenderer() if resolve_format(log_format) == "json" else _text)
    structlog.configure(
        processors=chain,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING)
    sys.excepthook = _crashed


class _Forward(logging.Handler):
    """What other libraries log: the message before its values are put in, since those may be anybody's words."""

    def emit(self, record: logging.LogRecord) -> None:
        said = str(record.msg).split("\n", 1)[0]
        log = structlog.get_logger()
        tell = log.error if record.levelno >= logging.ERROR else log.warning
        tell("library", logger=record.name, said=said, exc_info=record.exc_info or None)


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    structlog.get_logger().error("crashed", exc_info=(kind, error, trace))


def _in_order(_: Any, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """What happened first, in words next, when it happened last, as the proxy writes its lines."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    name, level = event.pop("event"), event.pop("level")
    words = {"message": LINES[name]} if name in LINES else {}
    return {"event": name, **words, **event, "level": level, "timestamp": now}


def _where(_: Any, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Of an exception its kind, and the innermost places that it went through."""
    given = event.pop("exc_info", None)
    found = given if isinstance(given, tuple) else sys.exc_info() if given else None
    if isinstance(given, BaseException):
        found = type(given), given, given.__traceback__
    if not found or found[0] is None or found[1] is None:
        return event
    event["exception"] = [
        {
            "kind": stack["exc_type"],
            "at": [f"{frame['filename']}:{frame['lineno']} {frame['name']}" for frame in stack["frames"]],
        }
        for stack in _stacks(found)
    ]
    return event


def _text(_: Any, __: str, event: structlog.types.EventDict) -> str:
    """One line for people; several sentences, and a traceback, below it."""
    below = [
        line
        for stack in event.pop("exception", ())
        for line in (f"    {stack['kind']}", *(f"      {place}" for place in stack["at"]))
    ]
    name = event.pop("event")
    head = f"{event.pop('timestamp')} [{event.pop('level'):<7}] {event.pop('message', name)}"
    for key, value in event.items():
        if isinstance(value, list):
            below = [f"    {item}" for item in value] + below
        else:
            # A line break in a value must not look like a line of the log.
            head += f" {key}={value if str(value).isprintable() else repr(value)}"
    return "\n".join([head, *below])

"""Structured logs on stderr: JSON lines, or text for people at a terminal."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def resolve_format(log_format: str) -> str:
    """`auto` is text at a terminal, else JSON."""
    if log_format != "auto":
        return log_format
    return "text" if sys.stderr.isatty() else "json"


def configure(level: str, log_format: str) -> None:
    """Set up structlog for this process; nothing from other libraries below warnings."""
    chain: list[structlog.types.Processor] = [structlog.processors.add_log_level, _in_order]
    # Local variables hold secrets and what people wrote: a traceback shows where, never what.
    if resolve_format(log_format) == "json":
        tracebacks = ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
        chain += [tracebacks, structlog.processors.JSONRenderer()]
    else:
        chain += [structlog.processors.format_exc_info, _text]
    structlog.configure(
        processors=chain,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")


def _in_order(_: Any, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """What happened first, when it happened last, as the proxy writes its lines."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    name, level = event.pop("event"), event.pop("level")
    return {"event": name, **event, "level": level, "timestamp": now}


def _text(_: Any, __: str, event: structlog.types.EventDict) -> str:
    """One line for people; several sentences, and a traceback, below it."""
    below = [str(event.pop("exception"))] if "exception" in event else []
    head = f"{event.pop('timestamp')} [{event.pop('level'):<7}] {event.pop('event')}"
    for name, value in event.items():
        if isinstance(value, list):
            below += [f"    {item}" for item in value]
        else:
            # A line break in a value must not look like a line of the log.
            head += f" {name}={value if str(value).isprintable() else repr(value)}"
    return "\n".join([head, *below])

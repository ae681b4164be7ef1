"""docs/logs.md: every line of the log, made from the list of names and from the calls in the code."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.logged import SECTIONS

_HEAD = """# The log

One JSON object a line on stderr, or text when that is a terminal (`SIDECAR_LOG_FORMAT`); `SIDECAR_LOG_LEVEL` says from
which severity on. This page is made from the code by `make docs`.

```json
{"event": "outcome_delivered", "message": "the billing API has an outcome", \
"outcome_id": "out_…", "session_id": "ses_…", "state": "RESOLVED", \
"level": "info", "timestamp": "2026-11-22T10:00:00.000Z"}
```

`event` is the line's name and stays the same from release to release: filter and alert by it. `message`, missing in the
proxy's lines, is for people and may change. The other fields are named below; `problems` are sentences, `reason` and
`error` what another program or the system said. An exception is shown by its kind and where it was, not by its words,
which may quote what they met. There is no line for a request.

Nothing that passed the proxy is ever in it: no text, header, credential, reason of a signal or attribute. Sessions,
outcomes, producers and conversations' outcomes are named by ids alone.
"""
_LEVELS = ("debug", "info", "warning", "error")


@dataclass(slots=True)
class Line:
    """How a name is logged: at which levels, with which fields."""

    levels: set[str] = field(default_factory=set)
    fields: list[str] = field(default_factory=list)


def document() -> str:
    """The page."""
    found = lines()
    return _HEAD + "".join(
        f"\n## {title}\n\n| event | level | fields | message |\n|---|---|---|---|\n"
        + "".join(_row(name, said, found[name]) for name, said in section.items())
        for title, section in SECTIONS.items()
    )


def lines() -> dict[str, Line]:
    """By name, as the package's code logs them."""
    found: dict[str, Line] = {}
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        for call in _calls(ast.parse(path.read_text(encoding="utf-8"))):
            for level, name, given in call:
                line = found.setdefault(name, Line())
                line.levels.add(level)
                line.fields += [one for one in given if one not in line.fields]
    return found


def _calls(tree: ast.AST) -> Iterator[list[tuple[str, str, list[str]]]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        first = node.args[0]
        if not isinstance(first, ast.Constant) or not isinstance(first.value, str):
            continue
        levels = _levels(node.func)
        if levels:
            given = [word.arg or "…" for word in node.keywords if word.arg != "exc_info"]
            exception = isinstance(node.func, ast.Attribute) and node.func.attr == "exception"
            caught = exception or any(word.arg == "exc_info" for word in node.keywords)
            yield [(level, first.value, given + (["exception"] if caught else [])) for level in levels]


def _levels(function: ast.expr) -> list[str]:
    """At which levels a call logs: `log.info(…)`, or one of two that was chosen before."""
    if isinstance(function, ast.Attribute) and _is_log(function.value):
        level = "error" if function.attr == "exception" else function.attr
        return [level] if level in _LEVELS else []
    chosen = isinstance(function, ast.Name) and function.id in {"level", "tell"}
    return ["error", "warning"] if chosen else []


def _is_log(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Attribute) and value.func.attr == "get_logger"
    name = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
    return name in {"log", "_log"}


def _row(name: str, said: str, line: Line) -> str:
    levels = ", ".join(level for level in _LEVELS if level in line.levels)
    fields = ", ".join(f"`{one}`" for one in line.fields) or "–"
    return f"| `{name}` | {levels} | {fields} | {said} |\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")

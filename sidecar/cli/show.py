"""What people and programs see: columns that are never cut, JSON, and colour on terminals alone (no-color.org)."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TextIO

NOTHING = "–"
_CODES = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "dim": 2, "bold": 1}
STATE_COLOURS = {
    "RESOLVED": "green",
    "RESOLVED_PENDING": "green",
    "ESCALATED_TO_HUMAN": "yellow",
    "NOT_BILLABLE": "yellow",
    "INCONCLUSIVE": "dim",
    "REVERSED": "red",
    "AI_HANDLING": "blue",
}
_BLOCK = 200  # rows whose widths are looked at together, so that the first are shown before the last have come


def coloured(stream: TextIO) -> bool:
    """Whether colours are wanted there: a terminal that has them, and nobody said NO_COLOR."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def paint(text: str, colour: str | None, stream: TextIO | None = None) -> str:
    """The text in a colour, where colours are wanted."""
    if colour is None or not coloured(stream or sys.stdout):
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def plain(value: Any) -> str:
    """A cell: what comes from outside cannot move the cursor, nor break the line."""
    text = NOTHING if value is None or value == "" else str(value)
    return text if text.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in text)


def print_json(document: Any) -> None:
    """One document."""
    print(_json(document, indent=2))


def print_line(document: Any) -> None:
    """One of a stream."""
    print(_json(document), flush=True)


def _json(document: Any, indent: int | None = None) -> str:
    """Characters as they are; all but ASCII escaped where stdout cannot carry them, half a surrogate pair for one."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(document, indent=indent)
    return text


def print_table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = (), state: str = "STATE"
) -> int:
    """Aligned and never cut: an id is there to be copied, and the output to be piped. Returns the number of rows.

    `right` names the columns of numbers; `state` the one whose words have colours.
    """
    widths = [len(name) for name in head]
    total = 0
    for block in _blocks(rows):
        cells = [[plain(cell) for cell in row] for row in block]
        widths = [max(width, *map(len, column)) for width, column in zip(widths, zip(*cells, strict=True), strict=True)]
        if total == 0:
            print(paint(_line(head, head, widths, right), "bold"))
        for row in cells:
            print(_line(head, row, widths, right, state))
        total += len(block)
    return total


def _blocks(rows: Iterable[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    left = iter(rows)
    while block := list(islice(left, _BLOCK)):
        yield block


def _line(head: Sequence[str], row: Sequence[str], widths: Sequence[int], right: Sequence[str], state: str = "") -> str:
    cells = []
    last = len(head) - 1
    for index, (name, cell, width) in enumerate(zip(head, row, widths, strict=True)):
        pad = " " * (width - len(cell))
        shown = paint(cell, STATE_COLOURS.get(cell)) if name == state else cell
        cells.append(pad + shown if name in right else shown if index == last else shown + pad)
    return "  ".join(cells).rstrip()


def moment(text: str) -> str:
    """An instant of an answer, to the millisecond."""
    return re.sub(r"(\.\d{3})\d+Z$", r"\1Z", text)


def say_nothing(text: str) -> None:
    """That there is nothing; stdout is left to what there is."""
    print(text, file=sys.stderr)


def count(number: int, noun: str) -> str:
    """`1 session`, `2 sessions`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"

"""What people say that conversations were: a CSV file, out of a CRM or a spreadsheet. Pure."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LABELS_MAX = 100_000
BYTES_MAX = 64 << 20
CONVERSATION_COLUMNS = ("conversation", "conversation_id", "conversationid", "chat_id", "ticket_id", "id")
OUTCOME_COLUMNS = ("outcome", "label", "resolution", "result", "state")


class LabelsError(ValueError):
    """A file that cannot be used; `problems` say why, with lines."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Labels:
    """The label of each conversation, in the file's order; `blank` rows said nothing."""

    by_conversation: Mapping[str, str]
    blank: int


def read_labels(
    source: bytes,
    name: str,
    *,
    conversation: str | None = None,
    outcome: str | None = None,
    renamed: Mapping[str, str] | None = None,
) -> Labels:
    """Read a CSV file with a header: `,`, `;` or tabs between the columns, UTF-8.

    `conversation` and `outcome` name the columns where they are not called as usual; `renamed` says which of the
    file's words means which outcome. Words are compared without regard to case. Raises LabelsError.
    """
    if len(source) > BYTES_MAX:
        raise LabelsError([f"{name}: {len(source)} bytes: at most {BYTES_MAX}"])
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelsError([f"{name}: not UTF-8 at byte {error.start}: save it as UTF-8"]) from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header = [cell.strip().lower() for cell in next(rows, [])]
    where = _column(header, conversation, CONVERSATION_COLUMNS, "--conversation-column", name)
    what = _column(header, outcome, OUTCOME_COLUMNS, "--outcome-column", name)
    return _labels(rows, where, what, name, {key.lower(): value for key, value in (renamed or {}).items()})


def _labels(rows: Any, where: int, what: int, name: str, renamed: Mapping[str, str]) -> Labels:
    found: dict[str, str] = {}
    lines: dict[str, int] = {}
    problems: list[str] = []
    blank = 0
    try:
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            cells = [row[place].strip() if place < len(row) else "" for place in (where, what)]
            if not all(cells):
                blank += 1
                continue
            conversation, label = cells[0], renamed.get(cells[1].lower(), cells[1].upper().replace(" ", "_"))
            if found.setdefault(conversation, label) != label:
                problems.append(
                    f"{name}:{rows.line_num}: {conversation!r} is {label} here and {found[conversation]} on line "
                    f"{lines[conversation]}: keep one"
                )
            lines.setdefault(conversation, rows.line_num)
            if len(found) > LABELS_MAX:
                raise LabelsError([f"{name}: more than {LABELS_MAX} conversations"])
    except csv.Error as error:
        problems.append(f"{name}:{rows.line_num}: not CSV: {error}")
    if problems:
        raise LabelsError(problems)
    return Labels(found, blank)


def _column(header: Sequence[str], given: str | None, usual: Sequence[str], option: str, name: str) -> int:
    for wanted in [given.lower()] if given else usual:
        if wanted in header:
            return header.index(wanted)
    listed = ", ".join(filter(None, header)) or "none"
    close = difflib.get_close_matches(given.lower(), header, n=1) if given else []
    hint = f"; did you mean {close[0]}?" if close else ""
    wanted = repr(given) if given else "one of " + ", ".join(usual)
    raise LabelsError([f"{name}:1: no column {wanted} (columns: {listed}): name it with {option}{hint}"])

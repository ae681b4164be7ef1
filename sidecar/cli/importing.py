"""`sidecar billing import`: events from a file, posted in batches, each as the text that it is in the file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from sidecar.cli import api
from sidecar.cli.grammar import FAILED, OK, CommandError
from sidecar.cli.show import plain, print_json

BATCH = 100
_BATCH_TYPE = "application/cloudevents-batch+json"
_TIMEOUT_SECONDS = 300.0


@dataclass
class Imported:
    """What became of the events of a file."""

    accepted: int = 0
    duplicates: int = 0
    rejected: list[dict[str, Any]] = field(default_factory=list)


def run(path: str, url: str | None, *, as_json: bool) -> int:
    """Post the events of a file (a JSON list, or one JSON object a line; `-` is stdin); exit code 1 on any rejection.

    Ids make it repeatable: what has arrived before is a duplicate and changes nothing.
    """
    found, again = Imported(), "repeat the command to go on"
    try:
        with api.billing(url, timeout_seconds=_TIMEOUT_SECONDS) as billing:
            if path == "-":
                _post_all(billing, sys.stdin, found)
            else:
                with Path(path).open(encoding="utf-8") as source:
                    _post_all(billing, source, found)
    except (CommandError, OSError, UnicodeDecodeError) as error:
        if isinstance(error, _UnreadableError | UnicodeDecodeError):
            again = f"correct {getattr(error, 'what', 'the file')} and repeat the command to go on"
        refused = f", {len(found.rejected)} rejected" if found.rejected else ""
        told = f"{found.accepted} accepted and {found.duplicates} duplicates{refused} before; {again}"
        raise CommandError(f"{path}: {error} ({told})", code=getattr(error, "code", FAILED)) from None
    if as_json:
        print_json(asdict(found))
    else:
        print(f"{found.accepted} accepted, {found.duplicates} duplicates, {len(found.rejected)} rejected")
        for rejection in found.rejected:
            print(f"  {plain(rejection['id'])}: {plain(rejection['reason'])}", file=sys.stderr)
    return FAILED if found.rejected else OK


class _UnreadableError(CommandError):
    """The file holds something that is no event; `what` is to be corrected."""

    def __init__(self, message: str, what: str = "the file") -> None:
        super().__init__(message)
        self.what = what


def _post_all(billing: api.Api, source: TextIO, found: Imported) -> None:
    """What stands before something unreadable is posted as well."""
    batch: list[str] = []
    unreadable: Exception | None = None
    try:
        for event in _events(source):
            batch.append(event)
            if len(batch) == BATCH:
                _post(billing, batch, found)
                batch.clear()
    except (_UnreadableError, UnicodeDecodeError) as error:
        unreadable = error
    if batch:
        _post(billing, batch, found)
    if unreadable is not None:
        raise unreadable


def _events(source: TextIO) -> Iterator[str]:
    """Each event as the text that it is in the file: numbers reach the ledger as they were written.

    Windows' tools begin a file with a byte order mark, U+FEFF.
    """
    first, above = source.read(1), 1
    while first.isspace() or first == "\ufeff":
        above += first == "\n"
        first = source.read(1)
    if first == "[":
        yield from _listed(source.read())
        return
    for number, line in enumerate(_lines(first, source), above):
        if line.strip():
            try:
                json.loads(line)
            except ValueError as error:
                raise _UnreadableError(f"line {number} is no JSON: {error}", f"line {number}") from None
            yield line


def _listed(text: str) -> Iterator[str]:
    """The elements of a JSON list whose opening bracket has been read."""
    decoder, position = json.JSONDecoder(), _past(text, 0)
    while not text.startswith("]", position):
        try:
            _, end = decoder.raw_decode(text, position)
        except ValueError as error:
            raise _UnreadableError(f"is no JSON list: {error}") from None
        yield text[position:end]
        position = _past(text, end)
        if text.startswith(",", position):
            position = _past(text, position + 1)
        elif not text.startswith("]", position):
            raise _UnreadableError(f"is no JSON list: a comma or ] is missing at character {position + 1}")
    if text[position + 1 :].strip():
        raise _UnreadableError("is no JSON list: something stands behind it")


def _past(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _lines(first: str, source: TextIO) -> Iterator[str]:
    yield first + source.readline()
    yield from source


def _post(billing: api.Api, batch: list[str], found: Imported) -> None:
    body = "[" + ",".join(batch) + "]"
    answer = billing.post("/v1/outcomes", content=body.encode(), kind=_BATCH_TYPE)
    found.accepted += answer["accepted"]
    found.duplicates += answer["duplicates"]
    found.rejected += answer["rejected"]

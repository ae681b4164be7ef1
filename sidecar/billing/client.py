"""The command line's side of the billing API: backtests, and events brought in from a file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import httpx
from rich.console import Console
from rich.table import Table

from sidecar.policy.loading import check_files

BATCH = 100
DEFAULT_URL = "http://127.0.0.1:8095"
_TIMEOUT_SECONDS = 300.0
_SINGLE, _BATCH_TYPE = "application/cloudevents+json", "application/cloudevents-batch+json"


class ClientError(Exception):
    """What the command cannot do; the message says what to change."""


def backtest(path: str, url: str, period: str, *, as_json: bool) -> int:
    """Print what a plan would have charged in a period; exit code 1 when the plan is wrong or the API refuses."""
    problems = check_files([path])
    if problems:
        for problem in problems:
            print(problem, file=sys.stderr)  # noqa: T201
        return 1
    try:
        with _client(url) as http:
            answer = http.post(
                "/v1/plans/backtest",
                params={"period": period},
                content=Path(path).read_bytes(),
                headers={"Content-Type": "application/yaml"},
            )
            found = _answered(answer)
    except (ClientError, httpx.HTTPError) as error:
        print(f"sidecar: {url}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))  # noqa: T201
    else:
        _show(found, Console())
    return 0


def _show(found: dict[str, Any], console: Console) -> None:
    table = Table(title=f"{found['plan']} over {found['period']}")
    for name in ("customer", "charged", "this plan", "difference", "sessions that change side"):
        table.add_column(name, justify="left" if name == "customer" else "right")
    for one in found["customers"]:
        amounts = (_amounts(one[name]) for name in ("actual", "tested", "difference"))
        table.add_row(one["customer"], *amounts, str(one["sessions_changed"]))
    table.add_section()
    amounts = (_amounts(found[name]) for name in ("actual", "tested", "difference"))
    table.add_row("all", *amounts, str(found["sessions_changed"]))
    console.print(table)
    for session in found["sessions"]:
        change = f"{session['actual']} → {session['tested']}"
        console.print(f"  {session['session_id']}  {session['customer']}: {change}", highlight=False)
    if found["sessions_changed"] > len(found["sessions"]):
        console.print(f"  … and {found['sessions_changed'] - len(found['sessions'])} more")


def _amounts(totals: dict[str, str]) -> str:
    return ", ".join(f"{amount} {code}" for code, amount in totals.items()) or "–"


@dataclass
class Imported:
    """What became of the events of a file."""

    accepted: int = 0
    duplicates: int = 0
    rejected: list[dict[str, Any]] = field(default_factory=list)


def bring_in(path: str, url: str, *, as_json: bool) -> int:
    """Post the events of a file (a JSON list, or one JSON object a line; `-` is stdin); exit code 1 on any rejection.

    Ids make it repeatable: what has arrived before is a duplicate and changes nothing.
    """
    found = Imported()
    try:
        with _client(url) as http:
            if path == "-":
                _post_all(http, sys.stdin, found)
            else:
                with Path(path).open(encoding="utf-8") as source:
                    _post_all(http, source, found)
    except (ClientError, httpx.HTTPError, OSError, UnicodeDecodeError) as error:
        told = f"{found.accepted} accepted and {found.duplicates} duplicates before; repeat the command to go on"
        print(f"sidecar: {path}: {error} ({told})", file=sys.stderr)  # noqa: T201
        return 1
    if as_json:
        print(json.dumps(found.__dict__, indent=2))  # noqa: T201
    else:
        numbers = f"{found.accepted} accepted, {found.duplicates} duplicates, {len(found.rejected)} rejected"
        print(numbers)  # noqa: T201
        for rejection in found.rejected:
            print(f"  {rejection['id']}: {rejection['reason']}", file=sys.stderr)  # noqa: T201
    return 1 if found.rejected else 0


def _post_all(http: httpx.Client, source: TextIO, found: Imported) -> None:
    batch: list[str] = []
    for event in _events(source):
        batch.append(event)
        if len(batch) == BATCH:
            _post(http, batch, found)
            batch.clear()
    if batch:
        _post(http, batch, found)


def _events(source: TextIO) -> Iterator[str]:
    """Each event as the text that it is in the file: numbers reach the ledger as they were written."""
    first = source.read(1)
    while first.isspace():
        first = source.read(1)
    if first == "[":
        yield from _listed(source.read())
        return
    for number, line in enumerate(_lines(first, source), 1):
        if line.strip():
            try:
                json.loads(line)
            except ValueError as error:
                raise ClientError(f"line {number} is no JSON: {error}") from None
            yield line


def _listed(text: str) -> Iterator[str]:
    """The elements of a JSON list whose opening bracket has been read."""
    decoder, position = json.JSONDecoder(), _past(text, 0)
    while not text.startswith("]", position):
        try:
            _, end = decoder.raw_decode(text, position)
        except ValueError as error:
            raise ClientError(f"is no JSON list: {error}") from None
        yield text[position:end]
        position = _past(text, end)
        if text.startswith(",", position):
            position = _past(text, position + 1)
        elif not text.startswith("]", position):
            raise ClientError(f"is no JSON list: a comma or ] is missing at character {position + 1}")
    if text[position + 1 :].strip():
        raise ClientError("is no JSON list: something stands behind it")


def _past(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _lines(first: str, source: TextIO) -> Iterator[str]:
    yield first + source.readline()
    yield from source


def _post(http: httpx.Client, batch: list[str], found: Imported) -> None:
    body = "[" + ",".join(batch) + "]"
    answer = _answered(http.post("/v1/outcomes", content=body.encode(), headers={"Content-Type": _BATCH_TYPE}))
    found.accepted += answer["accepted"]
    found.duplicates += answer["duplicates"]
    found.rejected += answer["rejected"]


def _client(url: str) -> httpx.Client:
    """With SIDECAR_BILLING_TOKEN, if there is one."""
    if not url.startswith(("http://", "https://")):
        raise ClientError(f"{url!r} is no URL: write one like {DEFAULT_URL}")
    token = _token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_SECONDS)


def _token() -> str:
    path = os.environ.get("SIDECAR_BILLING_TOKEN_FILE")
    return Path(path).read_text(encoding="utf-8").strip() if path else os.environ.get("SIDECAR_BILLING_TOKEN", "")


def _answered(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_success:
        found: dict[str, Any] = answer.json()
        return found
    try:
        problem = answer.json()
        detail = "; ".join([problem["detail"], *map(str, problem.get("errors", []))])
    except (ValueError, KeyError, TypeError):
        detail = answer.text[:200]
    raise ClientError(f"answered {answer.status_code}: {detail}")

"""`sidecar sessions …`: asks a running sidecar's admin API; tables for people, the answer as it is with `--json`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from sidecar.addresses import parse_address
from sidecar.sessions.chain import against_ledger

DEFAULT_ADMIN = "127.0.0.1:8090"
TIMEOUT_SECONDS = 10.0


def sessions(arguments: argparse.Namespace) -> int:
    """Run `list`, `explain`, `verify` or `redeliver`; 0 fine, 1 no answer, unknown or not intact, 2 wrong usage."""
    try:
        client = _client(arguments.admin)
    except (ValueError, OSError) as error:
        print(f"sidecar: {error}", file=sys.stderr)
        return 2
    with client:
        try:
            answer = _ask(client, arguments)
        except httpx.HTTPError as error:
            print(f"sidecar: the admin API at {client.base_url} does not answer: {error}", file=sys.stderr)
            return 1
    document = answer.json() if answer.content else {}
    if answer.is_error:
        print(f"sidecar: {document.get('detail', answer.reason_phrase)}", file=sys.stderr)
        return 1
    if arguments.action == "verify" and not _compare_with_ledger(document, arguments.billing):
        return 1
    if arguments.json:
        print(json.dumps(document, indent=2))
    else:
        _SHOW[arguments.action](document)
    return 1 if document.get("intact") is False else 0


def _client(admin: str | None) -> httpx.Client:
    socket, options = _connection(admin)
    transport = httpx.HTTPTransport(uds=socket) if socket else None
    return httpx.Client(transport=transport, timeout=TIMEOUT_SECONDS, **options)


def async_client(admin: str | None) -> httpx.AsyncClient:
    """A client of the admin API; raises ValueError or OSError for an address or token file that cannot be used."""
    socket, options = _connection(admin)
    transport = httpx.AsyncHTTPTransport(uds=socket) if socket else None
    return httpx.AsyncClient(transport=transport, timeout=TIMEOUT_SECONDS, **options)


def _connection(admin: str | None) -> tuple[str | None, dict[str, Any]]:
    """The path of the Unix socket, if it is one, and the base URL and headers."""
    text = admin or os.environ.get("SIDECAR_ADMIN_LISTEN") or DEFAULT_ADMIN
    try:
        address = parse_address(text)
    except ValueError as error:
        raise ValueError(f"the admin address {text!r} {error}") from None
    token = os.environ.get("SIDECAR_ADMIN_TOKEN")
    if token is None and (path := os.environ.get("SIDECAR_ADMIN_TOKEN_FILE")):
        token = Path(path).read_text(encoding="utf-8").strip()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if address.is_unix:
        return address.host.removeprefix("unix:"), {"base_url": "http://sidecar", "headers": headers}
    # An address that means "all of this machine's" is reached by loopback.
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address.host, str(address).rpartition(":")[0])
    return None, {"base_url": f"http://{host}:{address.port}", "headers": headers}


def _ask(client: httpx.Client, arguments: argparse.Namespace) -> httpx.Response:
    if arguments.action == "redeliver":
        return client.post("/v1/dead-letters/redeliver")
    if arguments.action == "candidate":
        return client.get("/v1/candidate")
    if arguments.action == "list":
        query = {"limit": str(arguments.limit)} | ({"state": arguments.state} if arguments.state else {})
        return client.get("/v1/sessions", params=query)
    found = _find(client, arguments.id)
    if arguments.action == "verify" and found.is_success:
        return client.get(f"/v1/sessions/{found.json()['id']}/verification")
    return found


def _find(client: httpx.Client, name: str) -> httpx.Response:
    if ":" in name:
        return client.get("/v1/sessions", params={"alias": name})
    return client.get(f"/v1/sessions/{name}")


def _compare_with_ledger(document: dict[str, Any], billing: str | None) -> bool:
    """Add what the ledger contradicts to the document; False (said on stderr) when the ledger does not answer."""
    document["ledger"] = None
    if billing is None:
        return True
    token = os.environ.get("SIDECAR_BILLING_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{billing.rstrip('/')}/v1/sessions/{document['session_id']}"
    try:
        answer = httpx.get(url, headers=headers, timeout=TIMEOUT_SECONDS)
        entries = [] if answer.status_code == 404 else answer.raise_for_status().json()["entries"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError) as error:
        print(f"sidecar: the billing API at {billing} does not answer: {error}", file=sys.stderr)
        return False
    document["problems"] += against_ledger(document, entries)
    document["intact"] = not document["problems"]
    document["ledger"] = len(entries)
    return True


def _show_list(document: dict[str, Any]) -> None:
    if not document["sessions"]:
        print("no sessions", file=sys.stderr)
        return
    rows = [
        (
            session["id"],
            session.get("conversation") or "–",
            session.get("customer") or "unattributed",
            session["state"],
            str(session["turns"]),
            str(session["llm_calls"]),
            session["last_activity_at"],
        )
        for session in document["sessions"]
    ]
    _print_columns(("SESSION", "CONVERSATION", "CUSTOMER", "STATE", "TURNS", "CALLS", "LAST ACTIVITY"), rows)


def _show_explanation(document: dict[str, Any]) -> None:
    print(f"{document['id']}  {document['state']}")
    for sentence in document["explanation"]:
        print(f"  {sentence}")
    if document["timeline"]:
        print()
        rows = [
            (entry["at"], entry["what"], entry.get("rule") or "", entry.get("digest") or "")
            for entry in document["timeline"]
        ]
        _print_columns(("AT", "WHAT", "RULE", "EVIDENCE"), rows)


def _show_verification(document: dict[str, Any]) -> None:
    dropped = f", {document['omitted']} dropped by its bound" if document["omitted"] else ""
    print(f"{document['session_id']}  {document['entries']} entries{dropped}, chain {document['evidence_chain']}")
    for problem in document["problems"]:
        print(f"  {problem}")
    if document["ledger"] is None:
        print("  not compared with the ledger: name it with --billing URL")
    elif document["intact"]:
        print(f"  agrees with the ledger's {document['ledger']} entr{'y' if document['ledger'] == 1 else 'ies'}")
    if document["intact"]:
        print("  every entry is as it was written")


def _show_candidate(document: dict[str, Any]) -> None:
    total = document["same"] + document["different"]
    print(f"candidate {document['plan']['name']} ({document['plan']['digest']})")
    for problem in document["problems"]:
        print(f"  its file's newest version is refused: {problem}")
    print(
        f"  {document['different']} of {total} sessions would have ended differently; {document['pending']} are open; "
        f"without a counterpart: {document['only_live']} live, {document['only_candidate']} of the candidate"
    )
    if document["dropped"]:
        print(f"  {document['dropped']} facts were not judged: the candidate could not keep up")
    rows = [
        (live, candidate, str(count))
        for live, row in document["matrix"].items()
        for candidate, count in row.items()
        if live != candidate
    ]
    if rows:
        print()
        _print_columns(("LIVE", "CANDIDATE", "SESSIONS"), rows)
        print()
    for each in document["differences"]:
        live, candidate = each["live"], each["candidate"]
        print(
            f"{each['conversation'] or each['session_id']}: {live['outcome']} ({live['reason']}), "
            f"candidate {candidate['outcome']} ({candidate['reason']})"
        )


def _print_columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned and never cut: an id is there to be copied, and the output to be piped."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _show_redelivered(document: dict[str, Any]) -> None:
    count = document["redelivered"]
    print(f"{count} dead letter{' is' if count == 1 else 's are'} in the outbox again" if count else "no dead letters")


_SHOW = {
    "candidate": _show_candidate,
    "list": _show_list,
    "explain": _show_explanation,
    "verify": _show_verification,
    "redeliver": _show_redelivered,
}

"""`sidecar sessions …`: asks a running sidecar about its sessions."""

from __future__ import annotations

import argparse
from typing import Any

from sidecar.cli.completion import session_ids
from sidecar.cli.grammar import (
    ADMIN_ENVIRONMENT,
    BILLING_ENVIRONMENT,
    FAILED,
    OK,
    Parser,
    actions,
    add_admin,
    add_json,
    add_paging,
    command,
)
from sidecar.cli.show import count, plain, print_json, print_line, print_table, say_nothing

# Spelt out so that help needs nothing of the machine; a test compares them.
STATES = (
    "AI_HANDLING", "RESOLVED_PENDING", "ESCALATED_TO_HUMAN", "RESOLVED", "INCONCLUSIVE", "NOT_BILLABLE", "REVERSED",
)  # fmt: skip
ID_HELP = "a session id (ses_…), or KIND:VALUE of what it is known by, for example conversation:c-42"
_SESSION = (
    '{"id", "conversation", "customer", "state", "outcome", "reason", "revision", "held", "shadow", "turns", '
    '"llm_calls", "started_at", "last_activity_at", "finalized_at", "plan", "evidence": […], …}'
)
LIST_EXAMPLES = (
    ("sidecar sessions list", "the newest sessions"),
    ("sidecar sessions list --state RESOLVED_PENDING --all", "every one that is resolved and not settled"),
    ("sidecar sessions list --customer acme --json", "one customer's, for a program"),
)


def add(commands: Any) -> None:
    """The commands."""
    sessions = command(
        commands,
        "sessions",
        "live sessions: list, explain, verify, redeliver",
        "Asks a running sidecar, at its admin address, about its sessions: what they are, why one was, or was not, "
        "charged, and whether its history is still as it was written.",
        environment=ADMIN_ENVIRONMENT,
    )
    below = actions(sessions)
    _add_list(below)
    explain = command(
        below,
        "explain",
        "why a session was, or was not, charged",
        "Timeline and evidence of one session, and in sentences why it was, or was not, charged.",
        _explain,
        examples=(
            ("sidecar sessions explain conversation:c-42", "the newest session of a conversation"),
            ("sidecar sessions explain ses_0b5a --json", "everything that is known of one"),
        ),
        environment=ADMIN_ENVIRONMENT,
        shape='the session: {"id", "state", …, "timeline": [{"at", "what", "from", "to", "rule", "reason"}], '
        '"explanation": ["…"]}',
    )
    _add_id(explain)
    verify = command(
        below,
        "verify",
        "whether a session's timeline is still as it was written",
        "Checks the hash chain of a session's timeline, and with --billing what the ledger was told of it. Exits with "
        "1 when anything differs.",
        _verify,
        examples=(
            ("sidecar sessions verify conversation:c-42", "by the timeline alone"),
            ("sidecar sessions verify ses_0b5a --billing http://127.0.0.1:8095", "and beside the ledger"),
        ),
        environment=(*ADMIN_ENVIRONMENT, BILLING_ENVIRONMENT[1]),
        shape='{"session_id", "intact": true, "problems": [], "entries": n, "omitted": n, "evidence_chain", '
        '"posted": [{"revision", "evidence_chain"}], "ledger": entries there, or null}',
    )
    _add_id(verify)
    verify.add_argument("--billing", metavar="URL", help="compare with what the ledger of this billing API was told")
    redeliver = command(
        below,
        "redeliver",
        "send dead letters to the billing API again",
        "Puts every outcome that the billing API refused for good back into the outbox, to be sent again. Look first, "
        "with --dry-run, at why they were refused.",
        _redeliver,
        examples=(
            ("sidecar sessions redeliver --dry-run", "what was refused, and why"),
            ("sidecar sessions redeliver", "once the cause is gone"),
        ),
        environment=ADMIN_ENVIRONMENT,
        shape='{"redelivered": n}; with --dry-run {"dead_letters": [{"id", "kind", "reason", "body"}]}',
    )
    redeliver.add_argument("--dry-run", action="store_true", help="list them, and change nothing")
    for each in (explain, verify, redeliver):
        add_admin(each)
        add_json(each)


def _add_id(to: Parser) -> None:
    named = to.add_argument("id", metavar="ID", help=ID_HELP)
    named.completer = session_ids  # type: ignore[attr-defined]  # argcomplete asks for this name


def _add_list(below: Any) -> None:
    listing: Parser = command(
        below,
        "list",
        "the latest sessions",
        "The latest sessions, newest first, with their states. The sidecar lists the newest 100,000.",
        _list,
        examples=LIST_EXAMPLES,
        environment=ADMIN_ENVIRONMENT,
        shape=f'{{"sessions": [{_SESSION}], "next": a cursor, or null}}; with --all one session a line',
    )
    listing.add_argument("--state", choices=STATES, metavar="STATE", help=f"only those in it: {', '.join(STATES)}")
    listing.add_argument("--customer", metavar="ID", help="only this customer's")
    add_paging(listing, "sessions")
    add_admin(listing)
    add_json(listing)


def _list(arguments: argparse.Namespace) -> int:
    from sidecar.cli import api

    query = {"state": arguments.state, "customer": arguments.customer}
    with api.admin(arguments.admin) as admin:
        if arguments.json and not arguments.all:
            sessions, following = admin.some("/v1/sessions", "sessions", arguments.limit, **query)
            print_json({"sessions": sessions, "next": following})
            return OK
        found = admin.pages("/v1/sessions", "sessions", None if arguments.all else arguments.limit, **query)
        if arguments.json:
            for session in found:
                print_line(session)
            return OK
        head = ("SESSION", "CONVERSATION", "CUSTOMER", "STATE", "TURNS", "CALLS", "LAST ACTIVITY")
        if not print_table(head, map(_row, found), right=("TURNS", "CALLS")):
            say_nothing("no sessions")
    return OK


def _row(session: dict[str, Any]) -> tuple[Any, ...]:
    return (
        session["id"],
        session.get("conversation"),
        session.get("customer") or "unattributed",
        session["state"],
        session["turns"],
        session["llm_calls"],
        session["last_activity_at"],
    )


def find(admin: Any, name: str) -> dict[str, Any]:
    """The session of that id, or the newest that is known as KIND:VALUE."""
    from sidecar.cli.api import segment

    found = admin.get("/v1/sessions", alias=name) if ":" in name else admin.get(f"/v1/sessions/{segment(name)}")
    return dict(found)


def _explain(arguments: argparse.Namespace) -> int:
    from sidecar.cli import api

    with api.admin(arguments.admin) as admin:
        session = find(admin, arguments.id)
    if arguments.json:
        print_json(session)
        return OK
    print(f"{session['id']}  {session['state']}")
    for sentence in session["explanation"]:
        print(f"  {plain(sentence)}")
    if session["timeline"]:
        print()
        rows = [(entry["at"], entry["what"], entry.get("rule"), entry.get("digest")) for entry in session["timeline"]]
        print_table(("AT", "WHAT", "RULE", "EVIDENCE"), rows)
    return OK


def _verify(arguments: argparse.Namespace) -> int:
    from sidecar.cli import api
    from sidecar.sessions.chain import against_ledger

    with api.admin(arguments.admin) as admin:
        found = admin.get(f"/v1/sessions/{api.segment(find(admin, arguments.id)['id'])}/verification")
    found["ledger"] = None
    if arguments.billing is not None:
        with api.billing(arguments.billing) as billing:
            entries = billing.get_or(f"/v1/sessions/{api.segment(found['session_id'])}", {"entries": []})["entries"]
        found["problems"] += against_ledger(found, entries)
        found["intact"] = not found["problems"]
        found["ledger"] = len(entries)
    if arguments.json:
        print_json(found)
    else:
        _show_verification(found)
    return OK if found["intact"] else FAILED


def _show_verification(found: dict[str, Any]) -> None:
    dropped = f", {found['omitted']} dropped by its bound" if found["omitted"] else ""
    print(f"{found['session_id']}  {found['entries']} entries{dropped}, chain {found['evidence_chain']}")
    for problem in found["problems"]:
        print(f"  {plain(problem)}")
    if found["ledger"] is None:
        print("  not compared with the ledger: name it with --billing URL")
    elif found["intact"]:
        print(f"  agrees with the ledger's {found['ledger']} entr{'y' if found['ledger'] == 1 else 'ies'}")
    if found["intact"]:
        print("  every entry is as it was written")


def _redeliver(arguments: argparse.Namespace) -> int:
    from sidecar.cli import api

    with api.admin(arguments.admin) as admin:
        found = admin.get("/v1/dead-letters") if arguments.dry_run else admin.post("/v1/dead-letters/redeliver")
    if arguments.json:
        print_json(found)
    elif not arguments.dry_run:
        number = found["redelivered"]
        are = "is" if number == 1 else "are"
        print(f"{count(number, 'dead letter')} {are} in the outbox again" if number else "no dead letters")
    elif not print_table(("REFUSED", "SESSION", "STATE", "REASON"), map(_letter, found["dead_letters"])):
        say_nothing("no dead letters")
    return OK


def _letter(letter: dict[str, Any]) -> tuple[Any, ...]:
    body = letter["body"] if isinstance(letter["body"], dict) else {}
    return letter["id"], body.get("session_id"), body.get("state"), letter["reason"]

"""`sidecar outcomes`, `customers` and `invoice`: asks the billing API what was charged, and decides."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any

from sidecar.cli.grammar import (
    BILLING_ENVIRONMENT,
    OK,
    WRONG_USAGE,
    CommandError,
    Parser,
    actions,
    add_billing,
    add_json,
    add_paging,
    command,
    period,
)
from sidecar.cli.show import count, moment, paint, plain, print_json, print_line, print_table, say_nothing

STATES = ("RESOLVED", "NOT_BILLABLE", "INCONCLUSIVE", "REVERSED")
_ROW = (
    '{"id", "customer", "session_id", "conversation", "state", "outcome", "revision", "reverses", "held", "billable", '
    '"shadow", "period", "late", "time", "received_at", "event": {…}}'
)
_DECISION = (
    '{"outcome", "session_id", "number", "kind", "actor", "reason", "customer", "assigned", "period", "decided_at"}'
)
# What can be decided: what it does, and what is asked before it is done.
DECISIONS = {
    "release": ("a held outcome is charged after all", "Charge"),
    "drop": ("a held outcome is never charged", "Never charge"),
    "reverse": ("a charged outcome is taken back, as a credit of now", "Take back"),
    "assign": ("the session of an unattributed outcome gets its customer", "Charge to {customer}"),
}
ASKS = ("y", "yes")


def add(commands: Any) -> None:
    """The commands."""
    outcomes = command(
        commands,
        "outcomes",
        "the ledger: list, show, release, drop, reverse, assign",
        "Asks the billing API about outcomes, and makes an operator's decisions about them.",
        environment=BILLING_ENVIRONMENT,
    )
    below = actions(outcomes)
    _add_list(below)
    show = command(
        below,
        "show",
        "one outcome: what it says, what was decided, and what it costs",
        "One row of the ledger with its evidence and every decision about its session, and what it costs: the invoice "
        "as it is, minus what it would be without this outcome.",
        _show,
        examples=(("sidecar outcomes show out_0b5a", "why it was, or was not, charged"),),
        environment=BILLING_ENVIRONMENT,
        shape=f'{_ROW[:-1]}, "decisions": [{_DECISION[:-1]}, "changed"}}], "charged_to": customer, or null, '
        '"amounts": [{"period", "currency", "amount"}], "changed": likewise, or null}; changed is what it '
        "changed on invoices when it came",
    )
    show.add_argument("id", metavar="ID", help="an outcome's id (out_…)")
    add_billing(show)
    add_json(show)
    for kind in DECISIONS:
        _add_decision(below, kind)


def _add_list(below: Any) -> None:
    listing: Parser = command(
        below,
        "list",
        "rows of the ledger, newest first",
        "Rows of the ledger, newest first. With --all they come page by page, however many there are.",
        _list,
        examples=(
            ("sidecar outcomes list --customer acme --period 2026-11", "what one customer's month is made of"),
            ("sidecar outcomes list --customer unattributed", "what waits for a customer"),
            ("sidecar outcomes list --all --json", "the whole ledger, one JSON object a line"),
        ),
        environment=BILLING_ENVIRONMENT,
        shape=f'{{"outcomes": [{_ROW}], "next": a cursor, or null}}; with --all one row a line',
    )
    listing.add_argument("--customer", metavar="ID", help="only this customer's; `unattributed`: nobody's")
    listing.add_argument("--state", choices=STATES, metavar="STATE", help=f"only those with it: {', '.join(STATES)}")
    listing.add_argument("--conversation", metavar="ID", help="only those of this conversation")
    listing.add_argument("--period", type=period, metavar="2026-11", help="only those of this month, in UTC")
    add_paging(listing, "rows")
    add_billing(listing)
    add_json(listing)


def _add_decision(below: Any, kind: str) -> None:
    meaning = DECISIONS[kind][0]
    to = " --customer acme" if kind == "assign" else ""
    added = command(
        below,
        kind,
        meaning,
        f"A decision: {meaning}. It is an entry of its own in the ledger, with who decided and why, and is never "
        "changed. On a terminal it is asked for; elsewhere --yes is needed. The same again changes nothing.",
        _decide,
        examples=((f'sidecar outcomes {kind} out_0b5a{to} --actor ann --reason "the customer called"', "asks first"),),
        environment=BILLING_ENVIRONMENT,
        shape=_DECISION,
    )
    added.set_defaults(kind=kind)
    added.add_argument("id", metavar="ID", help="an outcome's id (out_…)")
    if kind == "assign":
        added.add_argument("--customer", required=True, metavar="ID", help="who is charged")
    added.add_argument("--actor", required=True, metavar="NAME", help="who decides")
    added.add_argument("--reason", required=True, metavar="TEXT", help="why; it stays in the ledger")
    added.add_argument("--yes", action="store_true", help="do not ask")
    add_billing(added)
    add_json(added)


def add_invoices(commands: Any) -> None:
    """`customers` and `invoice`."""
    customers = command(
        commands,
        "customers",
        "who has outcomes or a contract",
        "Customers by name: all who are registered or have had an outcome summed up.",
        _customers,
        examples=(("sidecar customers --all", "every one"),),
        environment=BILLING_ENVIRONMENT,
        shape='{"customers": ["…"], "next": a cursor, or null}; with --all one name a line',
    )
    add_paging(customers, "customers")
    invoice = command(
        commands,
        "invoice",
        "one customer's month: lines, credits, total",
        "The invoice of one customer and month, as it stands: lines, adjustments, credits, what guardrails changed, "
        "and the total.",
        _invoice,
        examples=(
            ("sidecar invoice acme --period 2026-11", "for people"),
            ("sidecar invoice acme --period 2026-11 --csv > acme.csv", "for a spreadsheet"),
        ),
        environment=BILLING_ENVIRONMENT,
        shape='the invoice: {"customer", "period", "currency", "status", "plan", "lines": [{"charge", "metric", '
        '"quantity", "free", "billed", "amount", "description", …}], "subtotal", "adjustments", "credits", "total", '
        '"totals", "guardrails", "sections", "adjustment_lines", "credit_lines"}; amounts are texts',
    )
    invoice.add_argument("customer", metavar="CUSTOMER", help="the customer's id")
    invoice.add_argument("--period", type=period, required=True, metavar="2026-11", help="a month, in UTC")
    invoice.add_argument("--shadow", action="store_true", help="what its shadow events would have cost")
    for each in (customers, invoice):
        add_billing(each)
    add_json(customers)
    formats = invoice.add_mutually_exclusive_group()
    add_json(formats)  # type: ignore[arg-type]
    formats.add_argument("--csv", action="store_true", help="print CSV on stdout, as the API answers it")


def _list(arguments: argparse.Namespace) -> int:
    from sidecar.cli import api

    query = {name: getattr(arguments, name) for name in ("customer", "state", "conversation", "period")}
    with api.billing(arguments.billing) as billing:
        if arguments.json and not arguments.all:
            rows, following = billing.some("/v1/outcomes", "outcomes", arguments.limit, **query)
            print_json({"outcomes": rows, "next": following})
            return OK
        found = billing.pages("/v1/outcomes", "outcomes", None if arguments.all else arguments.limit, **query)
        if arguments.json:
            for row in found:
                print_line(row)
        elif not print_table(HEAD, map(_row, found)):
            say_nothing("no outcomes")
    return OK


HEAD = ("TIME", "OUTCOME", "SESSION", "CUSTOMER", "CONVERSATION", "STATE", "NAME", "NOTES")


def _row(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        moment(row["time"]),
        row["id"],
        row["session_id"],
        row["customer"],
        row["conversation"],
        row["state"],
        row["outcome"],
        notes(row),
    )


def notes(row: dict[str, Any]) -> str:
    """What is special about a row, in words that can be searched for."""
    said = [name for name in ("held", "shadow") if row[name]]
    said += [] if row["billable"] else ["not-billable"]
    said += [f"revision-{row['revision']}"] if row["revision"] else []
    said += [f"late-{row['late']}"] if row["late"] else []
    return ",".join(said)


def _show(arguments: argparse.Namespace) -> int:
    from sidecar.cli import api

    with api.billing(arguments.billing) as billing:
        found = billing.get(f"/v1/outcomes/{api.segment(arguments.id)}")
    if arguments.json:
        print_json(found)
        return OK
    data = found["event"]["data"]
    facts = [
        ("session", found["session_id"]),
        ("conversation", found["conversation"]),
        ("customer", _payer(found)),
        ("outcome", found["outcome"]),
        ("reason", data.get("reason")),
        ("time", f"{moment(found['time'])}, arrived {moment(found['received_at'])}"),
        ("period", found["late"] or found["period"]),
        ("costs", _amounts(found)),
        ("notes", notes(found)),
    ]
    print(f"{plain(found['id'])}  {paint(plain(found['state']), 'bold')}")
    for name, value in facts:
        if value:
            print(f"  {name:<13} {plain(value)}")
    for text in _evidence(data.get("evidence")):
        print(f"  {'evidence':<13} {text}")
    for one in found["decisions"]:
        to = f" to {plain(one['assigned'])}" if one["assigned"] else ""
        print(f"  {one['kind']:<13} {moment(one['decided_at'])}{to} by {plain(one['actor'])}: {plain(one['reason'])}")
    return OK


def _evidence(given: Any) -> Iterable[str]:
    """A line for each entry. The ledger keeps it as it was posted, and others than a sidecar post what they like."""
    for one in given if isinstance(given, list) else [given] if given else []:
        if isinstance(one, dict):
            at, rule, kind, digest = (plain(one.get(name)) for name in ("at", "rule", "kind", "digest"))
            yield f"{at}  {rule} ({kind})  {digest}"
        else:
            yield plain(one)


def _payer(found: dict[str, Any]) -> str:
    to = found["charged_to"]
    return found["customer"] if to in {None, found["customer"]} else f"{found['customer']}, charged to {to}"


def _amounts(found: dict[str, Any]) -> str:
    said = [f"{one['amount']} {one['currency']} in {one['period']}" for one in found["amounts"]]
    return ", ".join(said) or "nothing"


def _decide(arguments: argparse.Namespace) -> int:
    from sidecar.cli import api

    body = {"actor": arguments.actor, "reason": arguments.reason}
    if arguments.kind == "assign":
        body["customer"] = arguments.customer
    path = f"/v1/outcomes/{api.segment(arguments.id)}"
    with api.billing(arguments.billing) as billing:
        if not arguments.yes:
            _confirm(billing.get(path), arguments)
        made = billing.post(f"{path}/{arguments.kind}", body)
    if arguments.json:
        print_json(made)
    else:
        to = f" to {plain(made['assigned'])}" if made["assigned"] else ""
        done = f"{made['kind']}{to}, on the invoice of {made['period']}, by {plain(made['actor'])}"
        print(f"{plain(made['outcome'])}: {done}")
    return OK


def _confirm(found: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Ask, on a terminal; where nobody can be asked, nothing is done without --yes. Raises CommandError."""
    if not sys.stdin.isatty():
        raise CommandError("nobody can be asked here: say --yes if it is meant", code=WRONG_USAGE)
    verb = DECISIONS[arguments.kind][1].format(customer=getattr(arguments, "customer", ""))
    said = f"{plain(found['id'])}, {plain(found['state'])} of {plain(_payer(found))}, which costs {_amounts(found)}"
    print(f"{verb}: {said}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ASKS:
        raise CommandError("nothing was changed")


def _customers(arguments: argparse.Namespace) -> int:
    from sidecar.cli import api

    with api.billing(arguments.billing) as billing:
        if arguments.json and not arguments.all:
            names, following = billing.some("/v1/customers", "customers", arguments.limit)
            print_json({"customers": names, "next": following})
            return OK
        total = 0
        for name in billing.pages("/v1/customers", "customers", None if arguments.all else arguments.limit):
            total += 1
            if arguments.json:
                print_line(name)
            else:
                print(plain(name))
    if not total:
        say_nothing("no customers")
    return OK


def _invoice(arguments: argparse.Namespace) -> int:
    from sidecar.cli import api

    path = f"/v1/customers/{api.segment(arguments.customer)}/invoice"
    query = {"period": arguments.period, "shadow": "true" if arguments.shadow else None}
    with api.billing(arguments.billing) as billing:
        if arguments.csv:
            print(billing.text(path, format="csv", **query).replace("\r\n", "\n"), end="")
            return OK
        made = billing.get(path, **query)
    if arguments.json:
        print_json(made)
    else:
        _show_invoice(made)
    return OK


def _show_invoice(made: dict[str, Any]) -> None:
    shadow = "" if made["status"] == "closed" else ", open: it may still change"
    print(paint(f"{plain(made['customer'])}  {made['period']}", "bold") + f"  plan {plain(made['plan'])}{shadow}\n")
    rows = list(_invoice_rows(made))
    print_table(("CHARGE", "QUANTITY", "FREE", "BILLED", "AMOUNT", "", "DESCRIPTION"), rows, right=_NUMBERS)
    print()
    for code, amount in made["totals"].items():
        print(paint(f"total  {amount} {code}", "bold"))


_NUMBERS = ("QUANTITY", "FREE", "BILLED", "AMOUNT")


def _invoice_rows(made: dict[str, Any]) -> Iterable[tuple[Any, ...]]:
    for line in made["lines"]:
        numbers = (line["quantity"], line["free"], line["billed"], line["amount"])
        yield line["charge"], *numbers, line["currency"], line["description"]
    for section in made["sections"]:
        rails = section["guardrails"]
        for name, text in (("not_charged_by_cap", "not charged: the cap"), ("added_to_min_spend", "to the minimum")):
            if rails[name].strip("0."):
                sign = "-" if name == "not_charged_by_cap" else ""
                yield text, *_EMPTY, f"{sign}{rails[name]}", section["currency"], section["plan"]
    for change in made["adjustment_lines"]:
        yield "adjustment", *_EMPTY, change["amount"], change["currency"], f"of {change['period']}, closed since"
    for change in made["credit_lines"]:
        yield (
            "credit",
            *_EMPTY,
            _negative(change["amount"]),
            change["currency"],
            f"of {change['period']}{_taken(change)}",
        )


_EMPTY = (None, None, None)


def _taken(change: dict[str, Any]) -> str:
    """How many outcomes a credit takes back, and how many are charged in their stead; it names the first hundred."""
    more = " or more" if change["more"] else ""
    said = [
        f"{count(len(change[name]), 'outcome')}{more} {done}"
        for name, done in (("outcomes", "taken back"), ("instead", "charged instead"))
        if change[name]
    ]
    return f": {', '.join(said)}" if said else ""


def _negative(amount: str) -> str:
    if not amount.strip("0."):
        return amount
    return amount.removeprefix("-") if amount.startswith("-") else f"-{amount}"

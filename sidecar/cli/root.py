"""The whole command line: every group of commands, as help lists them."""

from __future__ import annotations

from sidecar import __version__
from sidecar.cli import completion, outcomes, plan, service, sessions, tail
from sidecar.cli.grammar import EXIT_CODES, Parser, actions

GROUPS = (
    ("run it", ["demo", "run", "billing", "doctor"]),
    ("decide what is charged", ["plan"]),
    ("see what happens, and why", ["sessions", "tail"]),
    ("see what was charged, and decide", ["outcomes", "invoice", "customers"]),
    ("more", ["completion"]),
)


def parser() -> Parser:
    """Made anew each time; the docs' commands are checked against it."""
    root = Parser(
        prog="sidecar",
        description="Bills AI agents by outcome: a transparent proxy beside the agent, and the billing API behind it.",
        epilog="Every command has --help with examples, and --json where it prints a result. Exit codes: "
        + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES)
        + ".\n\nTry `sidecar demo`: the whole system on this machine, with an invoice at the end.",
    )
    root.add_argument(
        "--version", action="version", version=f"outcome-sidecar {__version__}", help="show the version and exit"
    )
    commands = actions(root, metavar="COMMAND", required=False)
    service.add(commands)
    plan.add(commands)
    sessions.add(commands)
    tail.add(commands)
    outcomes.add(commands)
    outcomes.add_invoices(commands)
    completion.add(commands)
    root.groups = [(title, list(names)) for title, names in GROUPS]
    return root

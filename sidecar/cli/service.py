"""`sidecar demo`, `run`, `billing`, `doctor`: the programs themselves, and what checks them."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from sidecar.cli.grammar import (
    BILLING_ENVIRONMENT,
    OK,
    WRONG_USAGE,
    CommandError,
    actions,
    add_billing,
    add_json,
    command,
    positive,
)
from sidecar.cli.show import print_json

_SETTINGS = (
    ("SIDECAR_UPSTREAM", "where requests go, for example https://api.openai.com"),
    ("SIDECAR_LISTEN", "where the agent's traffic arrives (default 127.0.0.1:8080)"),
    ("SIDECAR_REDIS_URL", "where sessions live (default: an embedded server)"),
    ("SIDECAR_BILLING_URL", "base URL of the billing API (default: an embedded one)"),
    ("SIDECAR_PLAN", "path of the rate plan (default: a built-in one)"),
)
_REST = ("SIDECAR_…", "all others: `sidecar run --settings`, docs/configuration.md")


def add(commands: Any) -> None:
    """The commands."""
    demo = command(
        commands,
        "demo",
        "scripted agents talk through the sidecar to a fake LLM; ends with an invoice",
        "Starts a fake LLM and the sidecar with a Redis and a billing API of its own on free ports, lets scripted "
        "agents talk through it by the official SDKs, kills the observer in the middle, and compares every figure of "
        "the ledger and the invoices with what the script says. Needs the extra `demo`; leaves nothing behind. Exits "
        "with 1 when a figure is wrong, or the machine was too slow to tell.",
        _demo,
        examples=(
            ("sidecar demo", "about half a minute"),
            ("sidecar demo --stay", "and then look around, until Ctrl-C"),
        ),
        shape='{"sessions": {"RESOLVED": n, "NOT_BILLABLE": n, "INCONCLUSIVE": n, "REVERSED": n}, "invoice": {…}, '
        '"proxy": {"requests": n, "added_p50_us": x, "added_p99_us": x}}',
    )
    demo.add_argument(
        "--stay", action="store_true", help="keep everything running until Ctrl-C, the console to look at included"
    )
    demo.add_argument("--conversations", type=positive, default=72, metavar="N", help="how many at once (default 72)")
    add_json(demo)
    run = command(
        commands,
        "run",
        "the sidecar: proxy and observer",
        "The sidecar: forwards traffic untouched and turns its copy into outcomes. Without an upstream it is "
        "intake-only: signals, sweeping, delivery. Configured by environment variables alone; `sidecar run "
        "--settings` lists them.",
        _run,
        examples=(
            ("SIDECAR_UPSTREAM=https://api.openai.com sidecar run", "listens on 127.0.0.1:8080"),
            ("sidecar run --settings", "every variable, its default and meaning"),
        ),
        environment=(*_SETTINGS, _REST),
        shape='with --settings: [{"variables": ["…"], "default", "meaning"}]',
    )
    run.add_argument("--settings", action="store_true", help="list every environment variable and exit")
    run.add_argument("--json", action="store_true", help="with --settings: print one JSON document on stdout")
    _add_billing(commands)
    doctor = command(
        commands,
        "doctor",
        "checks what the sidecar depends on and says what to change",
        "Checks the settings, Redis, the plan, upstreams, the billing API, the clock, the ports, disk and shared "
        "memory, in the environment that `sidecar run` would have; changes nothing. Exits with 1 when something must "
        "change.",
        _doctor,
        examples=(("sidecar doctor", "before `sidecar run`, or when something is odd"),),
        environment=(*_SETTINGS, _REST),
        shape='{"fine": true, "findings": [{"part", "verdict": "ok", "warning" or "failed", "says", "change"}]}',
    )
    add_json(doctor)


def _add_billing(commands: Any) -> None:
    billing = command(
        commands,
        "billing",
        "the reference central billing API",
        "The reference central billing API: takes outcomes, makes invoices. Configured by environment variables alone.",
        _billing,
        examples=(("SIDECAR_DATA_DIR=/var/lib/billing sidecar billing", "listens on 127.0.0.1:8095"),),
        environment=(
            ("SIDECAR_BILLING_LISTEN", "where it listens (default 127.0.0.1:8095)"),
            ("SIDECAR_BILLING_DATABASE_URL", "the ledger (default: SQLite in SIDECAR_DATA_DIR)"),
            ("SIDECAR_BILLING_TOKEN", "bearer token of /v1/*; required unless the address is loopback"),
            ("SIDECAR_BILLING_PLAN", "path of the default plan (default: a built-in one)"),
            ("SIDECAR_…", "all others: docs/configuration.md"),
        ),
    )
    below = actions(billing, required=False)
    bring = command(
        below,
        "import",
        "post events from a file, for a migration",
        "Posts CloudEvents from a file to a running billing API: a JSON list, or one object a line. Can be repeated: "
        "what has arrived before changes nothing. Exits with 1 when any was rejected.",
        _import,
        examples=(("sidecar billing import events.jsonl", "to the billing API of the environment"),),
        environment=BILLING_ENVIRONMENT,
        shape='{"accepted": n, "duplicates": n, "rejected": [{"id", "reason"}]}',
    )
    bring.add_argument("file", metavar="FILE", help="the file; - is standard input")
    add_billing(bring)
    add_json(bring)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.settings:
        from sidecar import settings_reference

        if arguments.json:
            print_json(settings_reference.rows())
        else:
            print(settings_reference.describe())
        return OK
    if arguments.json:
        raise CommandError("--json belongs to --settings; SIDECAR_LOG_FORMAT=json makes the log JSON", code=WRONG_USAGE)
    from sidecar import app, settings

    try:
        app.run(os.environ)
    except settings.SettingsError as error:
        raise CommandError(*error.problems, code=WRONG_USAGE) from None


def _billing(_: argparse.Namespace) -> int:
    from sidecar.billing.main import run

    return run()


def _demo(arguments: argparse.Namespace) -> int:
    from sidecar.demo import run_demo

    return run_demo(json_output=arguments.json, stay=arguments.stay, conversations=arguments.conversations)


def _import(arguments: argparse.Namespace) -> int:
    from sidecar.cli import importing

    return importing.run(arguments.file, arguments.billing, as_json=arguments.json)


def _doctor(arguments: argparse.Namespace) -> int:
    from sidecar import settings
    from sidecar.admin import doctor
    from sidecar.admin.finding import Finding
    from sidecar.cli.show import paint

    try:
        findings = doctor.run(os.environ)
    except settings.SettingsError as error:
        if not arguments.json:
            raise CommandError(*error.problems, code=WRONG_USAGE) from None
        findings = [Finding("settings", "failed", problem, "correct that variable") for problem in error.problems]
        print_json({"fine": False, "findings": [finding.to_dict() for finding in findings]})
        return WRONG_USAGE
    failed = any(finding.verdict == "failed" for finding in findings)
    if arguments.json:
        print_json({"fine": not failed, "findings": [finding.to_dict() for finding in findings]})
    else:
        for finding in findings:
            mark, colour = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "red")}[finding.verdict]
            print(f"{paint(mark, colour)} {paint(finding.part, 'bold')}: {finding.says}")
            if finding.change:
                print(f"    → {finding.change}")
        sys.stdout.flush()
    return int(failed)

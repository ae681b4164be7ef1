"""The `sidecar` command. Each command imports what it needs when it runs, so that `--help` answers at once.

Exit codes: 0 fine, 1 a check failed, 2 wrong usage or configuration.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from sidecar import __version__

OK, CHECK_FAILED, WRONG_USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    root = parser()
    arguments = root.parse_args(argv)
    command: Callable[[argparse.Namespace], int] | None = getattr(arguments, "command", None)
    if command is None:
        root.print_help()
        return WRONG_USAGE
    try:
        return command(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the output has seen enough; nothing may be said at the exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def parser() -> argparse.ArgumentParser:
    """The whole command line; the docs' commands are checked against it."""
    root = argparse.ArgumentParser(
        prog="sidecar",
        description="Bills AI agents by outcome: a transparent proxy beside the agent, and the billing API behind it.",
        epilog="Try `sidecar demo`: the whole system on this machine, with an invoice at the end.",
    )
    root.add_argument(
        "--version", action="version", version=f"outcome-sidecar {__version__}", help="show the version and exit"
    )
    commands = root.add_subparsers(title="commands", metavar="COMMAND")
    _add_run(commands)
    billing = commands.add_parser(
        "billing",
        help="the reference central billing API",
        description="The reference central billing API: takes outcomes, makes invoices. Configured by environment "
        "variables alone: SIDECAR_BILLING_LISTEN (127.0.0.1:8095), SIDECAR_BILLING_DATABASE_URL (SQLite in "
        "SIDECAR_DATA_DIR), SIDECAR_BILLING_TOKEN, SIDECAR_BILLING_PLAN.",
    )
    billing.set_defaults(command=_billing)
    actions = billing.add_subparsers(title="actions", metavar="ACTION")
    bring = actions.add_parser(
        "import",
        help="post events from a file, for a migration",
        description="Posts CloudEvents from a file to a running billing API: a JSON list, or one object a line. Can be "
        "repeated: what has arrived before changes nothing. SIDECAR_BILLING_TOKEN is sent, if set.",
    )
    bring.add_argument("file", metavar="FILE", help="the file; - is standard input")
    bring.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    bring.add_argument("--billing", default="http://127.0.0.1:8095", metavar="URL", help="default: %(default)s")
    bring.set_defaults(command=_import)
    _add_demo(commands)
    _add_plan(commands)
    _add_sessions(commands)
    doctor = commands.add_parser(
        "doctor",
        help="checks what the sidecar depends on and says what to change",
        description="Checks Redis, the plan, upstreams, the billing API, disk and shared memory, in the environment "
        "that `sidecar run` would have; changes nothing. Exits with 1 when something must change.",
    )
    doctor.set_defaults(command=_doctor)
    return root


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = commands.add_parser(
        "run",
        help="the sidecar: proxy and observer",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="The sidecar: forwards traffic untouched and turns its copy into outcomes.\n"
        "Without an upstream it is intake-only: signals, sweeping, delivery.\n"
        "Configured by environment variables alone; `sidecar run --settings` lists them.",
    )
    run.add_argument("--settings", action="store_true", help="list every environment variable and exit")
    run.set_defaults(command=_run)


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="scripted agents talk through the sidecar to a fake LLM; ends with an invoice",
        description="Starts a fake LLM and the sidecar with a Redis and a billing API of its own on free ports, lets "
        "scripted agents talk through it by the official SDKs, kills the observer in the middle, and compares every "
        "figure of the ledger and the invoices with what the script says. Needs the extra `demo`; leaves nothing "
        "behind. Exits with 1 when a figure is wrong, or the machine was too slow to tell.",
    )
    demo.add_argument("--json", action="store_true", help="print one JSON document on stdout and nothing else there")
    demo.add_argument(
        "--stay", action="store_true", help="keep everything running until Ctrl-C, the console to look at included"
    )
    demo.add_argument("--conversations", type=int, default=72, metavar="N", help="how many at once (default 72)")
    demo.set_defaults(command=_demo)


def _add_plan(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    plan = commands.add_parser(
        "plan",
        help="rate plans: check, test, evaluate, candidate, backtest, schema",
        description="What can be done with rate plans (docs/plans.md, examples/plans).",
    )
    actions = plan.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="every error of a plan at once, with line numbers",
        description="Checks rate plans as the sidecar and the billing API would when they load them, and names every "
        "error at once, with its line, on stderr. Exits with 1 when there is any.",
    )
    check.add_argument("files", nargs="+", metavar="FILE", help="a rate plan, YAML or JSON")
    check.set_defaults(command=_plan_check)
    test = actions.add_parser(
        "test",
        help="conversations written as YAML, with the outcome that each must get",
        description="Plays conversations that are written as YAML under their plan, and compares the outcome of each "
        "with the one that it must get. Exits with 1 on any difference.",
    )
    test.add_argument("paths", nargs="*", metavar="DIR", help="a directory, searched whole, or a file")
    test.add_argument("--schema", action="store_true", help="print the format's JSON schema, for editors, and exit")
    test.add_argument("--plan", metavar="FILE", help="judge them by this plan instead of the one that they name")
    test.add_argument("--only", metavar="TEXT", help="only conversations with this in their name")
    test.add_argument("--verbose", action="store_true", help="tell of those that pass, too, what happened and why")
    test.add_argument("--json", action="store_true", help="one JSON document on stdout")
    test.set_defaults(command=_plan_test)
    _add_plan_evaluate(actions)
    candidate = actions.add_parser(
        "candidate",
        help="what the plan in SIDECAR_PLAN_CANDIDATE would have decided on live traffic",
        description="Asks a running sidecar, at its admin address, how the decisions of the plan in "
        "SIDECAR_PLAN_CANDIDATE differ from those of the plan in force.",
    )
    candidate.add_argument("--json", action="store_true", help="the API's answer as it is")
    candidate.add_argument("--admin", metavar="ADDRESS", help="admin address (default: SIDECAR_ADMIN_LISTEN)")
    candidate.set_defaults(command=_sessions, action="candidate")
    _add_plan_billing(actions)


def _add_plan_evaluate(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    evaluate = actions.add_parser(
        "evaluate",
        help="what was decided, beside what people say it was",
        description="Compares decisions with labels, by conversation id: a confusion matrix. Reads the ledger of a "
        "billing API (--billing; SIDECAR_BILLING_TOKEN), or a sidecar's live sessions.",
    )
    evaluate.add_argument("--labels", required=True, metavar="FILE", help="CSV with a header: conversation, outcome")
    evaluate.add_argument("--billing", metavar="URL", help="base URL of the billing API")
    evaluate.add_argument(
        "--admin", metavar="ADDRESS", help="a sidecar's admin address (default: SIDECAR_ADMIN_LISTEN)"
    )
    evaluate.add_argument("--conversation-column", metavar="NAME", help="if it is not called conversation")
    evaluate.add_argument("--outcome-column", metavar="NAME", help="if it is not called outcome or label")
    evaluate.add_argument("--map", action="append", metavar="WORD=OUTCOME", help="what a word of the labels means")
    evaluate.add_argument("--at-least", type=float, metavar="SHARE", help="exit with 1 below this agreement (0 to 1)")
    evaluate.add_argument("--list", type=int, default=20, metavar="N", help="disagreements to show (default 20)")
    evaluate.add_argument("--json", action="store_true", help="one JSON document on stdout")
    evaluate.set_defaults(command=_plan_evaluate)


def _add_plan_billing(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    backtest = actions.add_parser(
        "backtest",
        help="what a plan would have charged on recorded outcomes, beside what was charged",
        description="Asks a billing API to rate a period's outcomes by this plan. Changes nothing there. "
        "SIDECAR_BILLING_TOKEN is sent, if set.",
    )
    backtest.add_argument("file", metavar="FILE", help="a rate plan, YAML or JSON")
    backtest.add_argument("--billing", required=True, metavar="URL", help="base URL of the billing API")
    backtest.add_argument("--period", required=True, metavar="2026-11", help="a month, in UTC")
    backtest.add_argument("--json", action="store_true", help="the API's answer as it is")
    backtest.set_defaults(command=_plan_backtest)
    schema = actions.add_parser(
        "schema",
        help="the JSON Schema of plans, for editors",
        description="Prints the JSON Schema of rate plans on stdout, for editors that check while one types.",
    )
    schema.set_defaults(command=_plan_schema)


def _add_sessions(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sessions = commands.add_parser(
        "sessions",
        help="live sessions: list, explain, verify, redeliver",
        description="Asks a running sidecar, at its admin address, about its sessions.",
    )
    actions = sessions.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser(
        "list", help="the latest sessions", description="The latest sessions, newest first, with their states."
    )
    listing.add_argument("--state", help="only those in this state, for example AI_HANDLING")
    listing.add_argument(
        "--limit", type=int, default=100, metavar="N", help="at most so many (default 100, up to 1000)"
    )
    explain = actions.add_parser(
        "explain",
        help="why a session was, or was not, charged",
        description="Timeline and evidence of one session, and in sentences why it was, or was not, charged.",
    )
    explain.add_argument("id", metavar="ID", help="a session id (ses_…), or KIND:VALUE, for example conversation:c-42")
    verify = actions.add_parser(
        "verify",
        help="whether a session's timeline is still as it was written",
        description="Checks the hash chain of a session's timeline, and with --billing what the ledger was told of it.",
    )
    verify.add_argument("id", metavar="ID", help="a session id (ses_…), or KIND:VALUE, for example conversation:c-42")
    verify.add_argument("--billing", metavar="URL", help="compare with what the ledger of this billing API was told")
    redeliver = actions.add_parser(
        "redeliver",
        help="send dead letters to the billing API again",
        description="Puts every outcome that the billing API refused back into the outbox, to be sent again.",
    )
    named = ((listing, "list"), (explain, "explain"), (verify, "verify"), (redeliver, "redeliver"))
    for action, name in named:
        action.add_argument("--json", action="store_true", help="the API's answer as it is")
        action.add_argument("--admin", metavar="ADDRESS", help="admin address (default: SIDECAR_ADMIN_LISTEN)")
        action.set_defaults(command=_sessions, action=name)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.settings:
        from sidecar import settings_reference

        print(settings_reference.describe())
        return OK
    from sidecar import app, settings

    try:
        app.run(os.environ)
    except settings.SettingsError as error:
        return _wrong(error.problems)


def _billing(_: argparse.Namespace) -> int:
    from sidecar.billing.main import run

    return run()


def _demo(arguments: argparse.Namespace) -> int:
    from sidecar.demo import run_demo

    if arguments.conversations < 1:
        return _wrong(["--conversations must be at least 1"])
    return run_demo(json_output=arguments.json, stay=arguments.stay, conversations=arguments.conversations)


def _plan_check(arguments: argparse.Namespace) -> int:
    from sidecar.policy.loading import check_files

    problems = check_files(arguments.files)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print("fine: " + ", ".join(arguments.files))
    return CHECK_FAILED if problems else OK


def _plan_test(arguments: argparse.Namespace) -> int:
    if arguments.schema:
        import json

        from sidecar.plantest.conversation import schema

        print(json.dumps(schema(), indent=2))
        return OK
    from sidecar.plantest.run import run

    if not arguments.paths:
        return _wrong(["plan test needs a directory, for example: sidecar plan test plans"])
    return run(
        arguments.paths,
        plan=arguments.plan,
        only=arguments.only,
        verbose=arguments.verbose,
        as_json=arguments.json,
    )


def _plan_evaluate(arguments: argparse.Namespace) -> int:
    from sidecar.plantest.evaluate import run

    return run(arguments)


def _plan_backtest(arguments: argparse.Namespace) -> int:
    from sidecar.billing import client

    return client.backtest(arguments.file, arguments.billing, arguments.period, as_json=arguments.json)


def _plan_schema(_: argparse.Namespace) -> int:
    import json

    from sidecar.policy.schema import plan_schema

    print(json.dumps(plan_schema(), indent=2, ensure_ascii=False))
    return OK


def _import(arguments: argparse.Namespace) -> int:
    from sidecar.billing import client

    return client.bring_in(arguments.file, arguments.billing, as_json=arguments.json)


def _sessions(arguments: argparse.Namespace) -> int:
    from sidecar.admin import client

    return client.sessions(arguments)


def _doctor(_: argparse.Namespace) -> int:
    from sidecar import settings
    from sidecar.admin import doctor

    try:
        return doctor.run(os.environ)
    except settings.SettingsError as error:
        return _wrong(error.problems)


def _wrong(problems: list[str]) -> int:
    for problem in problems:
        print(f"sidecar: {problem}", file=sys.stderr)
    return WRONG_USAGE

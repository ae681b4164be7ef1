"""`sidecar plan …`: rate plans are checked, tested, compared and tried."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from sidecar.cli.grammar import (
    ADMIN_ENVIRONMENT,
    BILLING_ENVIRONMENT,
    FAILED,
    OK,
    WRONG_USAGE,
    CommandError,
    actions,
    add_admin,
    add_json,
    command,
    period,
    positive,
)
from sidecar.cli.show import plain, print_json, print_table

_ASKED = (*ADMIN_ENVIRONMENT, *BILLING_ENVIRONMENT[1:2])


def add(commands: Any) -> None:
    """The commands."""
    plan = command(
        commands,
        "plan",
        "rate plans: check, test, evaluate, candidate, backtest, schema",
        "What can be done with rate plans (docs/plans.md, examples/plans).",
    )
    below = actions(plan)
    _add_check_and_test(below)
    _add_evaluate(below)
    candidate = command(
        below,
        "candidate",
        "what the plan in SIDECAR_PLAN_CANDIDATE would have decided on live traffic",
        "Asks a running sidecar, at its admin address, how the decisions of the plan in SIDECAR_PLAN_CANDIDATE differ "
        "from those of the plan in force.",
        _candidate,
        examples=(("sidecar plan candidate", "of the sidecar on this machine"),),
        environment=ADMIN_ENVIRONMENT,
        shape='{"plan", "problems": […], "same": n, "different": n, "pending": n, "only_live": n, "only_candidate": n, '
        '"dropped": n, "matrix": {…}, "differences": […]}',
    )
    add_admin(candidate)
    add_json(candidate)
    _add_backtest(below)
    command(
        below,
        "schema",
        "the JSON Schema of plans, for editors",
        "Prints the JSON Schema of rate plans on stdout, for editors that check while one types.",
        _schema,
        examples=(("sidecar plan schema > plan.schema.json", "then name it in the editor"),),
        shape="is always JSON: the schema",
    )


def _add_check_and_test(below: Any) -> None:
    check = command(
        below,
        "check",
        "every error of a plan at once, with line numbers",
        "Checks rate plans as the sidecar and the billing API would when they load them, and names every error at "
        "once, with its line, on stderr. Exits with 1 when there is any.",
        _check,
        examples=(("sidecar plan check examples/plans/fin.yaml", "before it is used"),),
        shape='{"fine": true, "files": ["…"], "problems": ["file:line: …"]}',
    )
    check.add_argument("files", nargs="+", metavar="FILE", help="a rate plan, YAML or JSON")
    add_json(check)
    test = command(
        below,
        "test",
        "conversations written as YAML, with the outcome that each must get",
        "Plays conversations that are written as YAML under their plan, and compares the outcome of each with the one "
        "that it must get. Exits with 1 on any difference.",
        _test,
        examples=(
            ("sidecar plan test examples/plans", "all of a directory"),
            ("sidecar plan test examples/plans --only escalat --verbose", "some of them, told in full"),
        ),
        shape='{"passed": n, "failed": n, "problems": [{"file", "line", "message"}], "conversations": [{"file", '
        '"line", "name", "plan", "passed", "failed", "differences": [{"line", "step", "session", "field", "expected", '
        '"seen"}], "notes", "sessions"}]}',
    )
    test.add_argument("paths", nargs="*", metavar="DIR", help="a directory, searched whole, or a file")
    test.add_argument("--schema", action="store_true", help="print the format's JSON schema, for editors, and exit")
    test.add_argument("--plan", metavar="FILE", help="judge them by this plan instead of the one that they name")
    test.add_argument("--only", metavar="TEXT", help="only conversations with this in their name")
    test.add_argument("--verbose", action="store_true", help="tell of those that pass, too, what happened and why")
    add_json(test)


def _add_evaluate(below: Any) -> None:
    evaluate = command(
        below,
        "evaluate",
        "what was decided, beside what people say it was",
        "Compares decisions with labels, by conversation id: a confusion matrix. Reads the ledger of a billing API "
        "(--billing), or a sidecar's live sessions.",
        _evaluate,
        examples=(
            ("sidecar plan evaluate --labels crm.csv", "beside a sidecar's live sessions"),
            (
                "sidecar plan evaluate --labels crm.csv --billing http://127.0.0.1:8095 --at-least 0.95",
                "beside the ledger",
            ),
        ),
        environment=_ASKED,
        shape='{"compared": n, "agreement": share, "resolved_but_people_say_not": n, '
        '"free_but_people_say_resolved": n, "matrix": {label: {decision: n}}, "outcomes": {name: {"precision", '
        '"recall"}}, "disagreements": [{"conversation", "label", "decided", "session_id", "reason"}], '
        '"missing": ["…"], "blank": n}',
    )
    evaluate.add_argument("--labels", required=True, metavar="FILE", help="CSV with a header: conversation, outcome")
    evaluate.add_argument("--billing", metavar="URL", help="base URL of the billing API")
    add_admin(evaluate)
    evaluate.add_argument("--conversation-column", metavar="NAME", help="if it is not called conversation")
    evaluate.add_argument("--outcome-column", metavar="NAME", help="if it is not called outcome or label")
    evaluate.add_argument("--map", action="append", metavar="WORD=OUTCOME", help="what a word of the labels means")
    evaluate.add_argument("--at-least", type=float, metavar="SHARE", help="exit with 1 below this agreement (0 to 1)")
    evaluate.add_argument("--list", type=positive, default=20, metavar="N", help="disagreements to show (default 20)")
    add_json(evaluate)


def _add_backtest(below: Any) -> None:
    backtest = command(
        below,
        "backtest",
        "what a plan would have charged on recorded outcomes, beside what was charged",
        "Asks a billing API to rate a period's outcomes by this plan. Changes nothing there.",
        _backtest,
        examples=(("sidecar plan backtest new.yaml --billing http://127.0.0.1:8095 --period 2026-11", "by customer"),),
        environment=BILLING_ENVIRONMENT,
        shape='{"period", "plan", "actual": {"USD": "…"}, "tested", "difference", "customers": [{"customer", "actual", '
        '"tested", "difference", "sessions_changed"}], "sessions_changed": n, "sessions": [{"session_id", "outcome", '
        '"customer", "actual", "tested"}]}',
    )
    backtest.add_argument("file", metavar="FILE", help="a rate plan, YAML or JSON")
    backtest.add_argument("--billing", metavar="URL", help="base URL of the billing API")
    backtest.add_argument("--period", required=True, type=period, metavar="2026-11", help="a month, in UTC")
    add_json(backtest)


def _check(arguments: argparse.Namespace) -> int:
    from sidecar.policy.loading import check_files

    problems = [str(problem) for problem in check_files(arguments.files)]
    if arguments.json:
        print_json({"fine": not problems, "files": arguments.files, "problems": problems})
    else:
        _say(problems)
        if not problems:
            print("fine: " + ", ".join(arguments.files))
    return FAILED if problems else OK


def _say(problems: list[str]) -> None:
    for problem in problems:
        print(problem, file=sys.stderr)


def _test(arguments: argparse.Namespace) -> int:
    if arguments.schema:
        from sidecar.plantest.conversation import schema

        print(json.dumps(schema(), indent=2))
        return OK
    from sidecar.plantest.run import run

    if not arguments.paths:
        raise CommandError("plan test needs a directory, for example: sidecar plan test plans", code=WRONG_USAGE)
    return run(
        arguments.paths,
        plan=arguments.plan,
        only=arguments.only,
        verbose=arguments.verbose,
        as_json=arguments.json,
    )


def _evaluate(arguments: argparse.Namespace) -> int:
    from sidecar.plantest.evaluate import run

    return run(arguments)


def _candidate(arguments: argparse.Namespace) -> int:
    from sidecar.cli import api

    with api.admin(arguments.admin) as admin:
        found = admin.get("/v1/candidate")
    if arguments.json:
        print_json(found)
    else:
        _show_candidate(found)
    return OK


def _show_candidate(document: dict[str, Any]) -> None:
    total = document["same"] + document["different"]
    print(f"candidate {plain(document['plan']['name'])} ({document['plan']['digest']})")
    for problem in document["problems"]:
        print(f"  its file's newest version is refused: {plain(problem)}")
    print(
        f"  {document['different']} of {total} sessions would have ended differently; {document['pending']} are open; "
        f"without a counterpart: {document['only_live']} live, {document['only_candidate']} of the candidate"
    )
    if document["dropped"]:
        print(f"  {document['dropped']} facts were not judged: the candidate could not keep up")
    rows = [
        (live, candidate, number)
        for live, row in document["matrix"].items()
        for candidate, number in row.items()
        if live != candidate
    ]
    if rows:
        print()
        print_table(("LIVE", "CANDIDATE", "SESSIONS"), rows, right=("SESSIONS",))
        print()
    for each in document["differences"]:
        live, candidate = each["live"], each["candidate"]
        print(
            f"{plain(each['conversation'] or each['session_id'])}: {plain(live['outcome'])} ({plain(live['reason'])}), "
            f"candidate {plain(candidate['outcome'])} ({plain(candidate['reason'])})"
        )


def _backtest(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from sidecar.cli import api
    from sidecar.policy.loading import check_files

    problems = [str(problem) for problem in check_files([arguments.file])]
    if problems:
        _say(problems)
        return FAILED
    with api.billing(arguments.billing, timeout_seconds=300.0) as billing:
        found = billing.post(
            "/v1/plans/backtest",
            content=Path(arguments.file).read_bytes(),
            kind="application/yaml",
            period=arguments.period,
        )
    if arguments.json:
        print_json(found)
    else:
        _show_backtest(found)
    return OK


def _show_backtest(found: dict[str, Any]) -> None:
    print(f"{plain(found['plan'])} over {found['period']}\n")
    rows = [_compared(one["customer"], one) for one in found["customers"]]
    print_table(_BACKTEST, [*rows, _compared("all", found)], right=_BACKTEST[1:])
    if found["sessions"]:
        print()
        changed = (
            (one["session_id"], one["customer"], f"{one['actual']} → {one['tested']}") for one in found["sessions"]
        )
        print_table(("SESSION", "CUSTOMER", "CHANGES SIDE"), changed)
    if found["sessions_changed"] > len(found["sessions"]):
        print(f"… and {found['sessions_changed'] - len(found['sessions'])} more")


_BACKTEST = ("CUSTOMER", "CHARGED", "THIS PLAN", "DIFFERENCE", "SESSIONS THAT CHANGE SIDE")


def _compared(name: str, one: dict[str, Any]) -> tuple[Any, ...]:
    amounts = (", ".join(f"{amount} {code}" for code, amount in one[key].items()) for key in _AMOUNTS)
    return name, *amounts, one["sessions_changed"]


_AMOUNTS = ("actual", "tested", "difference")


def _schema(_: argparse.Namespace) -> int:
    from sidecar.policy.schema import plan_schema

    print_json(plan_schema())
    return OK

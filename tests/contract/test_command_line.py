"""The commands against a real admin server and a real billing API; the docs show what they print."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from seeded import RESOLVE, lines, seeded

from sidecar import cli

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "cli.md"
ANN = ("--actor", "ann", "--reason", "the customer called")


@pytest.fixture
async def told(redis_server, tmp_path, monkeypatch):
    async with seeded(redis_server.socket, tmp_path) as made:
        for name, value in made.environ.items():
            monkeypatch.setenv(name, value)
        await made.tell()
        yield made


@pytest.fixture
def run(capsys):
    async def asked(*argv, code=0):
        ended = await asyncio.to_thread(cli.main, list(argv))
        out, err = capsys.readouterr()
        assert ended == code, out + err
        return out if code == 0 else err

    return asked


def columns(text):
    """The rows of a table, as tuples of cells."""
    return [tuple(re.split(r"\s{2,}", row.strip())) for row in text.splitlines()]


async def test_what_the_docs_show_is_what_is_printed(told, run):
    shown = re.findall(r"```console\n\$ sidecar ([^\n]*)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(shown) >= 7
    for command, output in shown:
        assert await run(*shlex.split(command)) == output, command


async def test_sessions_are_filtered_and_come_in_pages(told, run):
    first = json.loads(await run("sessions", "list", "--limit", "2", "--json"))
    assert [one["conversation"] for one in first["sessions"]] == ["c-45", "c-44"]
    assert first["next"]
    every = lines(await run("sessions", "list", "--all", "--json"))
    assert [one["conversation"] for one in every] == ["c-45", "c-44", "c-43", "c-42", "c-41"]
    states = lines(await run("sessions", "list", "--all", "--json", "--state", "RESOLVED", "--customer", "acme"))
    assert [one["conversation"] for one in states] == ["c-45", "c-41"]
    assert (await run("sessions", "list", "--customer", "nobody")) == ""


async def test_what_the_ledger_shows_is_filtered_and_comes_in_pages(told, run):
    every = lines(await run("outcomes", "list", "--all", "--json"))
    assert [one["conversation"] for one in every] == ["c-42", "c-45", "c-44", "c-42", "c-41"]
    for filters, conversations in (
        (("--customer", "acme", "--state", "RESOLVED"), ["c-45", "c-42", "c-41"]),
        (("--conversation", "c-42"), ["c-42", "c-42"]),
        (("--period", "2026-10"), []),
        (("--customer", "unattributed"), ["c-44"]),
    ):
        found = json.loads(await run("outcomes", "list", *filters, "--json"))
        assert ([one["conversation"] for one in found["outcomes"]], found["next"]) == (conversations, None)
    page = json.loads(await run("outcomes", "list", "--limit", "2", "--json"))
    assert len(page["outcomes"]) == 2
    assert page["next"]


async def test_pages_follow_one_another_however_many_rows_there_are(told, run, monkeypatch):
    monkeypatch.setattr("sidecar.cli.api.PAGE", 2)
    for what, number in (("sessions", 5), ("outcomes", 5)):
        assert len(lines(await run(what, "list", "--all", "--json"))) == number
        assert len(json.loads(await run(what, "list", "--limit", "3", "--json"))[what]) == 3
        assert len((await run(what, "list", "--limit", "3")).splitlines()) == 4


async def outcome(run, conversation, *, revision=0):
    found = json.loads(await run("outcomes", "list", "--conversation", conversation, "--json"))["outcomes"]
    return next(one["id"] for one in found if one["revision"] == revision)


async def test_an_operator_decides(told, run):
    charged = await outcome(run, "c-45")
    assert json.loads(await run("outcomes", "show", charged, "--json"))["amounts"] == [
        {"period": "2026-11", "currency": "USD", "amount": "0.99"}
    ]
    assert "say --yes" in await run("outcomes", "reverse", charged, *ANN, code=2)
    made = json.loads(await run("outcomes", "reverse", charged, *ANN, "--yes", "--json"))
    assert (made["kind"], made["actor"], made["reason"]) == ("reverse", "ann", "the customer called")
    again = await run("outcomes", "reverse", charged, "--actor", "bob", "--reason", "me too", "--yes")
    assert "by ann" in again, "what was decided stays decided"
    nobodys = await outcome(run, "c-44")
    assert "to globex" in await run("outcomes", "assign", nobodys, "--customer", "globex", *ANN, "--yes")
    shown = await run("outcomes", "show", nobodys)
    assert "unattributed, charged to globex" in shown
    assert "by ann: the customer called" in shown


async def test_refusals_are_sentences(told, run):
    charged = await outcome(run, "c-41")
    assert "release" not in await run("outcomes", "list")
    refused = await run("outcomes", "release", charged, *ANN, "--yes", code=1)
    assert refused.startswith("sidecar: ")
    assert "reverse" in refused
    assert await run("outcomes", "show", "out_none", code=1) == "sidecar: there is no outcome 'out_none'\n"
    told_too_long = await run("outcomes", "drop", charged, "--actor", "ann", "--reason", "x" * 1001, "--yes", code=1)
    assert "reason: " in told_too_long
    assert "Traceback" not in told_too_long


async def test_a_wrong_token_says_which_variable(told, run, monkeypatch, tmp_path):
    monkeypatch.setenv("SIDECAR_BILLING_TOKEN", "wrong")
    monkeypatch.setenv("SIDECAR_ADMIN_TOKEN", "wrong")
    assert "SIDECAR_BILLING_TOKEN" in await run("outcomes", "list", code=1)
    assert "SIDECAR_ADMIN_TOKEN" in await run("sessions", "list", code=1)
    right = tmp_path / "token"
    right.write_text("s3cret\n")
    monkeypatch.setenv("SIDECAR_BILLING_TOKEN_FILE", str(right))
    monkeypatch.setenv("SIDECAR_ADMIN_TOKEN_FILE", str(right))
    await run("outcomes", "list")
    await run("sessions", "list")
    monkeypatch.setenv("SIDECAR_BILLING_TOKEN_FILE", str(tmp_path / "none"))
    assert "SIDECAR_BILLING_TOKEN_FILE" in await run("outcomes", "list", code=2)


async def test_an_invoice_as_a_document_and_as_a_table(told, run):
    made = json.loads(await run("invoice", "acme", "--period", "2026-11", "--json"))
    assert made["total"] == "0.99"
    table = await run("invoice", "acme", "--period", "2026-11", "--csv")
    assert table.splitlines()[-1] == "acme,2026-11,,total,,,,,,,,,0.99,USD"
    assert (await run("customers", "--all")).split() == ["acme", "unattributed"]


async def test_tail_shows_moves_as_they_happen(told, run):
    moves = lines(await run("tail", "--since", "1h", "--no-follow", "--json"))
    seen = [(one["conversation"], one["state"]) for one in moves if one["conversation"] in {"c-41", "c-42", "c-43"}]
    assert seen == [
        ("c-41", "AI_HANDLING"), ("c-41", "RESOLVED_PENDING"), ("c-41", "RESOLVED"),
        ("c-42", "AI_HANDLING"), ("c-42", "RESOLVED_PENDING"), ("c-42", "RESOLVED"),
        ("c-43", "AI_HANDLING"), ("c-42", "NOT_BILLABLE"),
    ]  # fmt: skip
    assert {one["customer"] for one in moves if one["conversation"] == "c-41"} == {"acme"}, "from its opening on"
    only = lines(await run("tail", "--since", "1h", "--no-follow", "--json", "--customer", "globex"))
    assert [one["conversation"] for one in only] == ["c-43"]


async def test_tail_shows_what_each_row_changed_on_the_invoice_when_it_came(told, run):
    rows = lines(await run("tail", "--billing", "--since", "2026-11-22T00:00:00Z", "--no-follow", "--json"))
    assert [(one["conversation"], one["state"], one["amounts"]) for one in rows] == [
        ("c-41", "RESOLVED", []), ("c-42", "RESOLVED", amount("0.99")), ("c-44", "RESOLVED", []),
        ("c-45", "RESOLVED", amount("0.99")), ("c-42", "NOT_BILLABLE", amount("-0.99")),
    ]  # fmt: skip
    later = lines(await run("tail", "--billing", "--since", "2026-11-22T11:00:05Z", "--no-follow", "--json"))
    assert [one["state"] for one in later] == ["NOT_BILLABLE"]


async def test_what_tail_sums_up_is_how_far_the_invoices_moved(told, run, capsys):
    await run("outcomes", "reverse", await outcome(run, "c-45"), *ANN, "--yes")
    await run("outcomes", "assign", await outcome(run, "c-44"), "--customer", "globex", *ANN, "--yes")
    argv = ["tail", "--billing", "--since", "2026-11-22T00:00:00Z", "--no-follow"]
    assert await asyncio.to_thread(cli.main, argv) == 0
    out, err = capsys.readouterr()
    assert [row.split()[3:6] for row in out.splitlines()[-2:]] == [["reverse", "-0.99", "USD"], ["assign", "0", "ann:"]]
    totals = {
        name: json.loads(await run("invoice", name, "--period", "2026-11", "--json"))["total"]
        for name in ("acme", "globex")
    }
    assert totals == {"acme": "0.00", "globex": "0.00"}
    assert err.endswith("; +0.00 USD\n"), err
    rows = lines(await run(*argv, "--customer", "acme", "--json"))
    assert [(one["state"], (one["decision"] or {}).get("kind")) for one in rows][-1] == (None, "reverse")
    assert sum(Decimal(one["amount"]) for row in rows for one in row["amounts"]) == Decimal(totals["acme"])
    assert {row["customer"] for row in rows} == {"acme"}


def amount(text):
    return [{"period": "2026-11", "currency": "USD", "amount": text}]


def at_a_terminal(environ, answer, *argv):
    """Run a command at a terminal of its own, type an answer; what the terminal shows, and the exit code."""
    control, terminal = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | environ | {"TERM": "xterm"}
    command = [sys.executable, "-m", "sidecar", *argv]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=env, cwd=ROOT)
    os.close(terminal)
    shown = b""
    try:
        os.write(control, answer)
        while chunk := read(control):
            shown += chunk
        return shown.decode(), process.wait(30)
    finally:
        process.kill()
        os.close(control)


def read(control):
    try:
        return os.read(control, 65536)
    except OSError:  # nobody holds the terminal any more
        return b""


async def test_a_decision_is_asked_for_at_a_terminal(told, run):
    charged = await outcome(run, "c-45")
    argv = ("outcomes", "reverse", charged, *ANN)
    shown, code = await asyncio.to_thread(at_a_terminal, told.environ, b"n\n", *argv)
    assert "which costs 0.99 USD in 2026-11? [y/N]" in shown
    assert (code, "nothing was changed" in shown) == (1, True)
    shown, code = await asyncio.to_thread(at_a_terminal, told.environ, b"y\n", *argv)
    assert (code, f"{charged}: reverse" in shown) == (0, True)


async def test_colours_are_for_terminals_alone(told, run):
    assert "\x1b" not in await run("sessions", "list")
    shown, _ = await asyncio.to_thread(at_a_terminal, told.environ, b"", "sessions", "list")
    assert "\x1b[32mRESOLVED\x1b[0m" in shown
    shown, _ = await asyncio.to_thread(at_a_terminal, told.environ | {"NO_COLOR": "1"}, b"", "sessions", "list")
    assert "\x1b" not in shown


async def test_what_strangers_wrote_moves_no_cursor(told, run):
    await told.say(50, "c-\x1b[2Jx", "ac\x07me", RESOLVE)
    shown = await run("sessions", "list")
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "c-\ufffd[2Jx" in shown


async def test_dead_letters_are_looked_at_before_they_are_sent_again(told, run):
    await told.say(51, "c-60", "acme", RESOLVE)
    [(entry, _)] = await told.store.redis.xrange(told.store.key("outbox"))
    await told.store.redis.xgroup_create(told.store.key("outbox"), "courier", id="0", mkstream=True)
    assert await told.store.bury(entry, "conflict")
    assert "conflict" in await run("sessions", "redeliver", "--dry-run")
    assert json.loads(await run("sessions", "redeliver", "--json")) == {"redelivered": 1}
    assert (await run("sessions", "redeliver")) == "no dead letters\n"


def documented(command):
    """The names at the top of what `--json` prints, by its help, and whether there may be more."""
    found = cli.parser()
    for word in command.split(" "):
        found = found.below(word)
    text = found.teaching.shape
    names, depth = [], 0
    for match in re.finditer(r'[{\[]|[}\]]|"(\w+)"(?=[:,}])|…', text[text.index("{") :]):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(match[0], 0)
        if depth == 1 and (match[1] or match[0] == "…"):
            names.append(match[1] or "…")
        if depth == 0:
            break
    return set(names) - {"…"}, "…" in names


WITH_JSON = [
    "sessions list", "sessions explain conversation:c-42", "sessions verify conversation:c-42",
    "sessions redeliver", "outcomes list", "outcomes show ID", "customers", "invoice acme --period 2026-11",
    "outcomes reverse ID --actor ann --reason why --yes", "tail --billing --since 2026-11-22T00:00:00Z --no-follow",
    "tail --since 1h --no-follow", "plan check examples/plans/fin.yaml", "plan test examples/plans --only escalat",
]  # fmt: skip


async def test_json_has_the_shape_that_help_says(told, run):
    charged = await outcome(run, "c-45")
    for command in WITH_JSON:
        argv = command.replace("ID", charged).split(" ")
        if argv[0] == "plan":
            argv[2] = str(ROOT / argv[2])
        printed = await run(*argv, "--json")
        shown = lines(printed)[0] if argv[0] == "tail" else json.loads(printed)
        words = [word for word in argv[:2] if word.isalpha()] if argv[0] not in {"invoice", "tail"} else argv[:1]
        names, more = documented(" ".join(words))
        assert names
        assert names <= shown.keys() if more else names == shown.keys(), command

"""The command line says what each command does, shows how, and answers mistakes with what was meant."""

import argparse
import re
import shlex
import subprocess
import sys

import pytest

from sidecar import settings
from sidecar.cli import main, outcomes, parser, sessions
from sidecar.cli.grammar import Parser, leaves
from sidecar.cli.root import GROUPS
from sidecar.sessions.states import State

ROOT = parser()


def commands(root):
    """Every command and action below `root`, by how it is typed."""
    below = root.subcommands()
    for child in below.choices.values() if below else ():
        yield child.prog, child
        yield from commands(child)


COMMANDS = dict(commands(ROOT))
LEAVES = {command.prog: command for command in leaves(ROOT)}


@pytest.mark.parametrize("typed", COMMANDS)
def test_every_command_describes_itself_and_what_it_takes(typed):
    command = COMMANDS[typed]
    assert isinstance(command, Parser)
    assert command.description
    assert all(action.help for action in command._actions if not isinstance(action, argparse._SubParsersAction))


@pytest.mark.parametrize("typed", LEAVES)
def test_every_command_shows_examples_that_are_understood(typed):
    examples = LEAVES[typed].teaching.examples
    assert examples
    for line, meaning in examples:
        assert meaning
        inner = re.search(r"sidecar [^()|>]*", line)[0]
        words = shlex.split(inner)[1:]
        parsed = ROOT.parse_args(words)
        assert parsed.command is LEAVES[typed].get_default("command"), line


@pytest.mark.parametrize("typed", LEAVES)
def test_every_command_names_variables_that_are_read(typed):
    known = {f"SIDECAR_{name.upper()}" for name in (*settings.Settings.model_fields, *settings.OTHER_COMMANDS)}
    for name, meaning in LEAVES[typed].teaching.environment:
        assert meaning
        assert name in known or name.endswith("…")


@pytest.mark.parametrize("typed", [name for name in LEAVES if name not in {"sidecar billing", "sidecar completion"}])
def test_every_command_that_prints_a_result_has_json_of_a_documented_shape(typed):
    command = LEAVES[typed]
    assert command.teaching.shape
    assert typed == "sidecar plan schema" or "--json" in command._option_string_actions


def test_every_command_stands_in_one_group():
    grouped = [name for _, names in GROUPS for name in names]
    assert sorted(grouped) == sorted(ROOT.subcommands().choices)


def test_the_states_that_are_offered_are_the_states_that_there_are():
    assert set(sessions.STATES) == set(State)
    assert set(outcomes.STATES) == {"RESOLVED", "NOT_BILLABLE", "INCONCLUSIVE", "REVERSED"}


@pytest.mark.parametrize("columns", [60, 80, 100])
@pytest.mark.parametrize("typed", ["sidecar", *COMMANDS])
def test_help_keeps_to_the_width_of_the_terminal(typed, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    for line in COMMANDS.get(typed, ROOT).format_help().splitlines():
        words = line.split()
        assert len(line) <= columns or len(words) <= 2 or line.startswith("  sidecar") or "sidecar " in line, line


def test_help_names_all_that_it_teaches(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["sessions", "list", "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    for words in ("usage: sidecar sessions list", "examples:", "environment:", "SIDECAR_ADMIN_TOKEN", "--json prints:"):
        assert words in shown


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("sesions list", "'sesions' is no command: did you mean sessions?"),
        ("sessions exlpain x", "'exlpain' is no command: did you mean explain?"),
        ("sessions list --costumer acme", "--costumer (did you mean --customer?)"),
        ("outcomes list --perod=2026-11", "--perod=2026-11 (did you mean --period?)"),
        ("outcomes list --cust acme", "--cust (did you mean --customer?)"),
        ("sessions list --state RESOLVE", "did you mean RESOLVED?"),
        ("xyz", "choose from demo, run"),
        ("outcomes list --period november", "write one like 2026-11"),
        ("outcomes list --limit 0", "must be a whole number, 1 or more"),
        ("outcomes release out_1", "the following arguments are required: --actor, --reason"),
        ("tail --since yesterday", "write a stretch like 10m"),
        ("tail --interval 0", "from 0.1 to 3600"),
        ("demo --conversations -1", "1 or more"),
    ],
)
def test_mistakes_are_answered_with_what_was_meant(typed, says, capsys):
    with pytest.raises(SystemExit) as ended:
        main(typed.split(" "))
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert out == ""
    assert says in err
    assert re.search(r"Try `sidecar.* --help`\.\n$", err)


def test_without_a_command_help_is_shown(capsys):
    assert main([]) == 2
    assert "see what was charged" in capsys.readouterr().out


def test_help_needs_nothing_of_what_the_commands_need():
    """So it answers at once, and so does a TAB."""
    heavy = {"httpx", "pydantic", "aiohttp", "redis", "yaml", "rich", "sqlalchemy", "structlog", "jmespath", "orjson"}
    code = f"import sys; import sidecar.cli; sidecar.cli.parser().format_help(); print({heavy!r} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout == "set()\n"


def test_the_proxys_process_imports_nothing_of_the_command_line():
    code = (
        "import sys; import sidecar.proxy.__main__; print([name for name in sys.modules if 'cli' in name.split('.')])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout == "[]\n"


@pytest.mark.parametrize("name", LEAVES)
def test_every_variable_of_a_command_says_what_it_alone_is_for(name):
    meanings = [re.split("[;,(]", meaning)[0] for _, meaning in LEAVES[name].teaching.environment]
    assert len(set(meanings)) == len(meanings)

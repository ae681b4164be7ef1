"""How commands describe themselves, and how mistakes are answered: argparse with examples, variables and suggestions.

`--help` of every command says what it is for, what it takes, shows examples, names the environment variables that it
reads, and what `--json` prints; `reference` makes docs/cli.md of the same.
"""

from __future__ import annotations

import argparse
import difflib
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

OK, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
EXIT_CODES = (
    ("0", "fine"),
    ("1", "a check failed, or an API refused or did not answer"),
    ("2", "wrong usage or configuration: nothing was done"),
    ("130", "ended by Ctrl-C before it was done"),
)
WIDTH_MAX = 110  # longer lines are hard to read
Pairs = Sequence[tuple[str, str]]
ADMIN_ENVIRONMENT = (
    ("SIDECAR_ADMIN_LISTEN", "the sidecar's admin address, if --admin names none (default 127.0.0.1:8090)"),
    (
        "SIDECAR_ADMIN_TOKEN",
        "the sidecar's bearer token; SIDECAR_ADMIN_TOKEN_FILE: the path of a file that holds it",
    ),
)
BILLING_ENVIRONMENT = (
    ("SIDECAR_BILLING_URL", "base URL of the billing API, if --billing names none (default: the embedded one's)"),
    (
        "SIDECAR_BILLING_TOKEN",
        "the billing API's bearer token; SIDECAR_BILLING_TOKEN_FILE: the path of a file that holds it",
    ),
    ("SIDECAR_DATA_DIR", "where an embedded billing API has left its address (default ./.sidecar)"),
)


class CommandError(Exception):
    """A command cannot do what was asked; each line, for stderr, says what to change."""

    def __init__(self, *lines: str, code: int = FAILED) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.code = code


@dataclass(frozen=True, slots=True)
class Teaching:
    """What help says beyond arguments.

    `examples` are command lines with what they do; `environment` the variables that are read, with what they mean;
    `shape` what `--json` prints.
    """

    examples: Pairs = ()
    environment: Pairs = ()
    shape: str = ""


class _Entry(argparse.Action):
    """A row of a two-column list in help that is no argument."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__([], dest="", metavar=name.replace("%", "%%"), help=text.replace("%", "%%"))

    def __call__(self, *_: Any) -> None:
        """Nothing is ever parsed into it."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """As wide as the terminal, within reason; paragraphs of a description are filled."""

    def __init__(self, prog: str, width: int | None = None) -> None:
        columns = width or min(shutil.get_terminal_size((80, 24)).columns, WIDTH_MAX)
        super().__init__(prog, max_help_position=28, width=max(columns - 2, 20))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = argparse.HelpFormatter(self._prog, width=self._width)._fill_text
        return "\n\n".join(fill(paragraph, width, indent) for paragraph in text.split("\n\n"))


class Parser(argparse.ArgumentParser):
    """A command: argparse, with what it teaches, groups of subcommands, and the nearest name on a mistake."""

    def __init__(self, *, teaching: Teaching | None = None, **options: Any) -> None:
        super().__init__(formatter_class=HelpFormatter, allow_abbrev=False, **options)
        self.teaching = teaching or Teaching()
        self.groups: list[tuple[str, list[str]]] = []  # of subcommands, by title

    # -- help ----------------------------------------------------------------------------------------------------

    def format_help(self) -> str:
        """Usage, purpose, commands, arguments, examples, variables, and what `--json` prints."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for title, entries in self.commands():
            self._section(formatter, title, entries)
        for group in self._action_groups:
            shown = [action for action in group._group_actions if not isinstance(action, argparse._SubParsersAction)]
            formatter.start_section(group.title)
            formatter.add_arguments(shown)
            formatter.end_section()
        self._section(formatter, "examples", self.teaching.examples)
        self._section(formatter, "environment", self.teaching.environment)
        if self.teaching.shape:
            formatter.start_section("--json prints")
            formatter.add_text(self.teaching.shape)
            formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help().rstrip() + "\n"

    def commands(self) -> list[tuple[str, Pairs]]:
        """Subcommands with their purposes, by group."""
        subparsers = self.subcommands()
        if subparsers is None:
            return []
        helps = {action.dest: str(action.help) for action in subparsers._choices_actions}
        groups = self.groups or [("actions", list(helps))]
        return [(title, [(name, helps[name]) for name in names]) for title, names in groups]

    @staticmethod
    def _section(formatter: argparse.HelpFormatter, title: str, entries: Pairs) -> None:
        formatter.start_section(title)
        formatter.add_arguments([_Entry(name, text) for name, text in entries])
        formatter.end_section()

    def below(self, name: str) -> Parser:
        """The subcommand of that name."""
        subparsers = self.subcommands()
        if subparsers is None:
            raise LookupError(name)
        return subparsers.choices[name]

    def arguments(self) -> list[argparse.Action]:
        """Arguments and options, but --help and what leads to subcommands."""
        left_out = (argparse._HelpAction, argparse._VersionAction, argparse._SubParsersAction)
        return [action for action in self._actions if not isinstance(action, left_out)]

    def subcommands(self) -> argparse._SubParsersAction[Parser] | None:
        """The action that holds the commands below this one."""
        found = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        return next(found, None)

    # -- mistakes ------------------------------------------------------------------------------------------------

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; but what a command does not know is answered by that command, with the nearest option."""
        found, extra = super().parse_known_args(args, namespace)
        if extra and not hasattr(self, "_argcomplete_namespace"):
            self.error(self._unknown(extra))
        return found, extra

    def _unknown(self, extra: Sequence[str]) -> str:
        options = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        said = []
        for text in extra:
            near = _nearest(text.partition("=")[0], options) if text.startswith("-") else ""
            said.append(f"{text} (did you mean {near}?)" if near else text)
        return f"unknown: {', '.join(said)}"

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        near = _nearest(str(value), choices)
        hint = f"did you mean {near}?" if near else f"choose from {', '.join(choices)}"
        what = "is no command" if isinstance(action, argparse._SubParsersAction) else "is not possible"
        raise argparse.ArgumentError(action, f"{value!r} {what}: {hint}")

    def error(self, message: str) -> NoReturn:
        """Usage, what is wrong, and where more stands; exit code 2."""
        self.print_usage(sys.stderr)
        message = re.sub(r"^argument (COMMAND|ACTION): ", "", message)
        self.exit(WRONG_USAGE, f"{self.prog}: {message}\nTry `{self.prog} --help`.\n")


def _nearest(text: str, names: Sequence[str]) -> str:
    found = difflib.get_close_matches(text, names, 1)
    if found:
        return found[0]
    begun = [name for name in names if len(text) > 2 and name.startswith(text)]
    return begun[0] if len(begun) == 1 else ""


Commands = argparse._SubParsersAction


def command(
    parent: Any,
    name: str,
    purpose: str,
    description: str,
    run: Callable[[argparse.Namespace], int] | None = None,
    **teaching: Any,
) -> Parser:
    """Add a command below `parent` (what `actions` or `add_subparsers` returned); `teaching` as in Teaching."""
    added: Parser = parent.add_parser(name, help=purpose, description=description, teaching=Teaching(**teaching))
    if run is not None:
        added.set_defaults(command=run)
    return added


def actions(parent: Parser, *, metavar: str = "ACTION", required: bool = True) -> Any:
    """Where the commands below `parent` are added."""
    return parent.add_subparsers(title="actions", metavar=metavar, required=required, parser_class=Parser)


def add_json(to: Parser, *, lines: bool = False) -> None:
    """The option that every command with a result has."""
    what = "JSON, one object a line" if lines else "one JSON document"
    to.add_argument("--json", action="store_true", help=f"print {what} on stdout, and nothing else there")


def add_admin(to: Parser) -> None:
    """The option that names a running sidecar."""
    to.add_argument("--admin", metavar="ADDRESS", help="admin address of the sidecar, host:port or unix:/path")


def add_billing(to: Parser) -> None:
    """The option that names the billing API."""
    to.add_argument("--billing", metavar="URL", help="base URL of the billing API")


def add_paging(to: Parser, what: str) -> None:
    """How many rows are shown."""
    limits = to.add_mutually_exclusive_group()
    limits.add_argument(
        "--limit", type=positive, default=100, metavar="N", help=f"at most so many {what} (default 100)"
    )
    limits.add_argument("--all", action="store_true", help="all of them, page by page as they come")


def positive(text: str) -> int:
    """A number of an option, at least 1."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 1 or more")
    return number


def period(text: str) -> str:
    """A month of an option."""
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no month: write one like 2026-11")
    return text


def leaves(root: Parser) -> list[Parser]:
    """Every command that can be run, in the order of help."""
    below = root.subcommands()
    found = [root] if below is None or root.get_default("command") is not None else []
    for _, names in root.groups or [("", list(below.choices) if below else [])]:
        for name in names:
            if below is not None:
                found += leaves(below.choices[name])
    return found

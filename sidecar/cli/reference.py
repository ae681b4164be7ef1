"""The command line as docs/cli.md has it, made of the same grammar that is parsed: `make docs`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from sidecar.cli.grammar import EXIT_CODES, Pairs, Parser, leaves
from sidecar.cli.root import parser


def document(page: str) -> str:
    """`page` with what stands between its markers renewed; raises ValueError when a marker is missing."""
    root = parser()
    for name, lines in (("overview", _overview(root)), ("exit-codes", _exit_codes()), ("commands", _commands(root))):
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        before, found, rest = page.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found or not found_end:
            raise ValueError(f"the page needs the markers {begin.strip()} and {end}")
        page = before + begin + "".join(f"{line}\n" for line in lines) + end + after
    return page


def _overview(root: Parser) -> Iterator[str]:
    yield "| command | what it is for |"
    yield "|---|---|"
    for command in leaves(root):
        yield f"| [`{command.prog}`](#{_anchor(command.prog)}) | {_cell(_purpose(root, command))} |"


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9-]", "", title.lower().replace(" ", "-"))


def _purpose(root: Parser, command: Parser) -> str:
    """The line that stands beside a command in its parent's help."""
    found, text = root, ""
    for word in command.prog.split(" ")[1:]:
        text = dict(entry for _, entries in found.commands() for entry in entries)[word]
        found = found.below(word)
    return text


def _exit_codes() -> Iterator[str]:
    yield "| code | means |"
    yield "|---|---|"
    for code, meaning in EXIT_CODES:
        yield f"| {code} | {meaning} |"


def _commands(root: Parser) -> Iterator[str]:
    for command in leaves(root):
        yield ""
        yield f"### `{command.prog}`"
        yield ""
        yield from _paragraphs(str(command.description))
        yield from _arguments(command)
        yield from _examples(command.teaching.examples)
        if command.teaching.environment:
            names = ", ".join(f"`{name}`" for name, _ in command.teaching.environment)
            yield ""
            yield f"Reads {names}."
        if command.teaching.shape:
            yield ""
            yield f"`--json` prints: {_code(command.teaching.shape)}"
    yield ""


def _paragraphs(text: str) -> Iterator[str]:
    yield from text.split("\n\n")


def _arguments(command: Parser) -> Iterator[str]:
    shown = command.arguments()
    if shown:
        yield ""
        yield "| argument | meaning |"
        yield "|---|---|"
    for action in shown:
        yield f"| `{_name(action)}` | {_cell(str(action.help))}{' (needed)' if _needed(action) else ''} |"


def _name(action: argparse.Action) -> str:
    value = str(action.metavar or "")
    if not action.option_strings:
        return f"{value}…" if action.nargs in {"+", "*"} else value
    if action.nargs == 0:
        return action.option_strings[0]
    return f"{action.option_strings[0]} [{value}]" if action.nargs == "?" else f"{action.option_strings[0]} {value}"


def _needed(action: argparse.Action) -> bool:
    return bool(action.option_strings and action.required)


def _examples(examples: Pairs) -> Iterator[str]:
    if not examples:
        return
    width = max(len(line) for line, _ in examples)
    yield ""
    yield "```sh"
    for line, meaning in examples:
        yield f"{line.ljust(width)}  # {meaning}"
    yield "```"


def _code(text: str) -> str:
    """The JSON of a shape as code, and what is said around it as words."""
    return re.sub(r"[{\[].*[}\]]", lambda found: f"`{found[0]}`", text) + "."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(document(path.read_text(encoding="utf-8")), encoding="utf-8")

"""The `sidecar` command. Each command imports what it needs when it runs, so that `--help` answers at once.

Owns: words, options, tables and exit codes. Does not own: what is asked for; that is behind the admin and billing APIs.

One module for each group of commands: its grammar and what it does; `grammar` is how help is written and mistakes are
answered, `api` how the two APIs are asked, `root` puts the groups together.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sidecar.cli.grammar import FAILED, INTERRUPTED, OK, WRONG_USAGE, CommandError
from sidecar.cli.root import parser

if TYPE_CHECKING:
    import argparse

__all__ = ["FAILED", "INTERRUPTED", "OK", "WRONG_USAGE", "main", "parser"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    root = parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may follow; this answers and exits
        import argcomplete

        argcomplete.autocomplete(root)
    arguments = root.parse_args(argv)
    command: Callable[[argparse.Namespace], int] | None = getattr(arguments, "command", None)
    if command is None:
        root.print_help()
        return WRONG_USAGE
    try:
        return command(arguments)
    except CommandError as error:
        for line in error.lines:
            print(f"sidecar: {line}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has seen enough; nothing may be said at the exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK

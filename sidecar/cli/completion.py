"""`sidecar completion SHELL`: prints what a shell reads to complete commands, options and their values.

argcomplete does the work: at a TAB the shell runs `sidecar` with `_ARGCOMPLETE` set, which answers from the grammar
that is parsed. Ids of sessions are asked of a running sidecar, briefly; without one there are none.
"""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from sidecar.cli.grammar import OK, CommandError, command

SHELLS = ("bash", "zsh", "fish")
ASK_SECONDS = 1.0
OFFERED_MAX = 100


def add(commands: Any) -> None:
    """The command."""
    completion = command(
        commands,
        "completion",
        "completion of commands and options in bash, zsh, fish",
        "Prints a script for a shell: with it TAB completes commands, options, their values, and ids of live sessions.",
        _completion,
        examples=(
            ("source <(sidecar completion bash)", "in ~/.bashrc"),
            ("source <(sidecar completion zsh)", "in ~/.zshrc, after compinit"),
            ("sidecar completion fish > ~/.config/fish/completions/sidecar.fish", "once"),
        ),
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))


def _completion(arguments: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["sidecar"], shell=arguments.shell).strip())
    return OK


def session_ids(parsed_args: argparse.Namespace, **_: Any) -> dict[str, str]:
    """Ids of the newest live sessions, each with its state."""
    from sidecar.cli import api

    with (
        contextlib.suppress(CommandError),
        api.admin(getattr(parsed_args, "admin", None), timeout_seconds=ASK_SECONDS) as admin,
    ):
        found = admin.get("/v1/sessions", limit=OFFERED_MAX)["sessions"]
        return {one["id"]: f"{one['state']} {one['conversation'] or ''}".strip() for one in found}
    return {}

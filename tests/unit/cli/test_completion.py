"""Completion in a real bash, and what zsh and fish are told by the same protocol."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.cli import main
from sidecar.cli.completion import SHELLS

BIN = Path(sys.executable).parent
ASK = """
eval "$(sidecar completion bash)"
COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9 COMP_WORDBREAKS=$' \\t\\n"'"'"'><=;|&(:'
COMPREPLY=()
_python_argcomplete sidecar
printf '%s\\n' "${COMPREPLY[@]}"
"""


def environ(**more):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    return clean | {"PATH": f"{BIN}:{clean['PATH']}"} | more


def offered(line, **more):
    argv = ["bash", "-c", ASK, "bash", line]
    ended = subprocess.run(argv, env=environ(**more), capture_output=True, text=True, timeout=60, check=True)
    return [word.strip() for word in ended.stdout.splitlines() if word.strip()]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sidecar sess", {"sessions"}),
        ("sidecar sessions ", {"list", "explain", "verify", "redeliver"}),
        ("sidecar outcomes re", {"release", "reverse"}),
        ("sidecar sessions list --sta", {"--state"}),
        ("sidecar sessions list --state RES", {"RESOLVED", "RESOLVED_PENDING"}),
        ("sidecar completion ", set(SHELLS)),
        ("sidecar invoice acme --", {"--period", "--shadow", "--billing", "--json", "--csv"}),
    ],
)
def test_bash_completes_commands_options_and_values(line, words):
    found = set(offered(line)) - {"-h", "--help"}
    assert found == words


def test_a_command_that_cannot_be_asked_offers_no_ids():
    assert "--admin" in offered("sidecar sessions explain ", SIDECAR_ADMIN_LISTEN="unix:/nowhere/at-all.sock")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_answered_by_the_same_protocol(shell, tmp_path):
    line, told = "sidecar sessions li", tmp_path / "told"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_SHELL": shell, "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line}
    asked |= {"COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": str(told), "_ARGCOMPLETE_DFS": "\t"}
    subprocess.run([BIN / "sidecar"], env=environ(**asked), timeout=60, check=False, capture_output=True)
    assert told.read_text().split()[0].startswith("list")


@pytest.mark.parametrize(
    ("shell", "says"), [("bash", "complete "), ("zsh", "#compdef sidecar"), ("fish", "complete --command sidecar")]
)
def test_each_shell_gets_its_script(shell, says, capsys):
    assert main(["completion", shell]) == 0
    assert says in capsys.readouterr().out

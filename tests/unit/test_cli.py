"""The command line says what each command does."""

import argparse

import pytest

from sidecar.cli import parser


def commands(root):
    """Every command and action below `root`, by how it is typed."""
    for action in root._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield child.prog, child
                yield from commands(child)


COMMANDS = dict(commands(parser()))


@pytest.mark.parametrize("typed", COMMANDS)
def test_every_command_describes_itself_and_what_it_takes(typed):
    command = COMMANDS[typed]
    assert command.description
    assert all(action.help for action in command._actions if not isinstance(action, argparse._SubParsersAction))

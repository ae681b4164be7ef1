"""Ties a child to its parent: `python -m sidecar.proxy.lifeline PARENT_PID -- ARGV…`.

Asks the kernel for SIGTERM when the parent dies (PR_SET_PDEATHSIG, kept over exec), makes sure that it has not died
already, and becomes ARGV. The signal is sent when the *thread* that started the child ends, so the proxy starts its
children from its main thread, which lives as long as the process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
USAGE: Final = "usage: python -m sidecar.proxy.lifeline PARENT_PID -- PROGRAM [ARGUMENT…]"


def main(arguments: Sequence[str]) -> int:
    """Become the program in `arguments`; returns only when that is impossible (126 no such parent, 127 no program)."""
    if len(arguments) < 3 or not arguments[0].isdecimal() or arguments[1] != "--":
        sys.stderr.write(USAGE + "\n")
        return 2
    parent, program = int(arguments[0]), list(arguments[2:])
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        sys.stderr.write(f"lifeline: prctl: {os.strerror(ctypes.get_errno())}\n")
        return 126
    if os.getppid() != parent:  # it died before the kernel was asked
        return 126
    try:
        os.execvp(program[0], program)  # noqa: S606  the program is the parent's choice
    except OSError as error:
        sys.stderr.write(f"lifeline: {program[0]}: {error.strerror}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

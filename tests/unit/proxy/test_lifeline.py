from __future__ import annotations

import os
import subprocess
import sys

from sidecar.proxy import lifeline


def test_lifeline_refuses_a_parent_that_is_not_its_own():
    argv = [sys.executable, "-m", "sidecar.proxy.lifeline", "1", "--", "true"]
    assert subprocess.run(argv, check=False).returncode == 126


def test_lifeline_says_what_it_cannot_run():
    argv = [sys.executable, "-m", "sidecar.proxy.lifeline", str(os.getpid()), "--", "/no/such/program"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "/no/such/program" in done.stderr


def test_lifeline_usage(capsys):
    assert lifeline.main(["x"]) == 2
    assert "usage" in capsys.readouterr().err

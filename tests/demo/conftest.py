"""The example fake LLM as a process, and the example agent as a module."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.demo.examples import examples_dir, load_agent

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="session")
def agent():
    return load_agent(examples_dir())


@pytest.fixture(scope="session")
def llm_url():
    argv = [sys.executable, str(EXAMPLES / "fake_llm.py"), "--port", "0", "--delay-ms", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        yield json.loads(process.stdout.readline())["address"]
        process.terminate()
        assert process.wait(20) == 0

"""Processes for the tests of the whole; and what cannot be tested without npm or a browser."""

from pathlib import Path

import pytest
from chromium import missing
from harness import FakeLLM, Sidecar
from hypothesis import settings

settings.register_profile("suite", deadline=None)  # no test asserts on a time
settings.load_profile("suite")

FROM_NPM = Path(__file__).parent / "clients" / "node_modules" / "ai"
# What is not tested → why.
NOT_TESTED = {
    **({} if FROM_NPM.exists() else {"contract/test_sdk_ai.py": "the Vercel AI SDK, for npm did not bring it"}),
    **({"browser": f"the console in a browser, for {' and '.join(missing())}"} if missing() else {}),
}
collect_ignore = list(NOT_TESTED)


def pytest_terminal_summary(terminalreporter):
    for what in NOT_TESTED.values():
        terminalreporter.write_line(f"NOT TESTED: {what} (`make test` tries)", red=True)


def pytest_addoption(parser):
    parser.addoption(
        "--compiled", action="store_true", help="the proxies under test must run compiled (see `make test-compiled`)"
    )


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    server = FakeLLM(tmp_path_factory.mktemp("llm"))
    yield server
    server.close()


@pytest.fixture
def sidecar(tmp_path, llm):
    """A factory of sidecars; all are closed at the end."""
    made = []

    def make(**environ):
        sidecar = Sidecar(tmp_path / f"sidecar-{len(made)}", **({"UPSTREAM": llm.url} | environ))
        made.append(sidecar)
        return sidecar

    yield make
    for one in made:
        one.close()

"""Processes for the tests of the whole."""

import pytest
from harness import FakeLLM, Sidecar


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

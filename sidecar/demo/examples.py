"""Finds the examples, in a checkout beside the package, in an installed wheel inside it, and loads the agent."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).resolve().parents[1]
_AGENT_MODULE = "sidecar_demo_agent"


class MissingPartError(RuntimeError):
    """The demo cannot run here; the text says what to install."""


def examples_dir() -> Path:
    """The folder with agent.py, fake_llm.py and plans/; raises MissingPartError."""
    for folder in (PACKAGE / "_examples", PACKAGE.parent / "examples"):
        if (folder / "agent.py").is_file() and (folder / "fake_llm.py").is_file():
            return folder
    raise MissingPartError("the examples are not there: reinstall with pip install --force-reinstall outcome-sidecar")


def load_agent(folder: Path) -> ModuleType:
    """The module of examples/agent.py; raises MissingPartError when the SDKs that it uses are not installed."""
    spec = importlib.util.spec_from_file_location(_AGENT_MODULE, folder / "agent.py")
    if spec is None or spec.loader is None:
        raise MissingPartError(f"{folder / 'agent.py'} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_AGENT_MODULE] = module  # dataclasses look their module up by name
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        del sys.modules[_AGENT_MODULE]
        raise MissingPartError(
            f"the demo's agents speak through the official SDKs, and {error.name} is not installed:"
            " pip install 'outcome-sidecar[demo]'"
        ) from error
    return module

"""LiteLLM's proxy: what a user would pick instead, for keys, budgets and spend; installed apart, since it is large."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import latency
from bench.processes import free_port, process, wait_listening
from bench.proxies import Running

_PLACE = Path(sys.prefix) / "bench-litellm"
_INSTALL_SECONDS = 600
_START_SECONDS = 120
_CONFIG = """model_list:
- model_name: gpt-4o
  litellm_params: {{model: openai/gpt-4o, api_base: "http://127.0.0.1:{origin}/v1", api_key: sk-bench}}
litellm_settings: {{telemetry: false, drop_params: true}}
"""


def install() -> bool:
    """Into an environment of its own (0.8 GB); False when it cannot be had."""
    if not (_PLACE / "bin" / "litellm").exists():
        pip = [str(_PLACE / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        try:
            for argv in ([sys.executable, "-m", "venv", str(_PLACE)], [*pip, "litellm[proxy]"]):
                subprocess.run(argv, check=True, stderr=subprocess.DEVNULL, timeout=_INSTALL_SECONDS)
        except (OSError, subprocess.SubprocessError):
            return False
    return (_PLACE / "bin" / "litellm").exists()


@contextmanager
def running(origin: int, pinned: set[int]) -> Iterator[Running]:
    """One worker, nothing logged, no database: as lean as it comes."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-litellm-") as directory:
        config = Path(directory, "config.yaml")
        config.write_text(_CONFIG.format(origin=origin))
        argv = [str(_PLACE / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        own = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": latency.KEY}
        env = {**os.environ, **own}
        with process([*argv, "--num_workers", "1"], pinned, env) as started:
            wait_listening(port, seconds=_START_SECONDS)
            yield port, started.pid

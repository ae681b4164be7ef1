"""Build hook: with SIDECAR_COMPILE=1 the wheel also holds the proxy's hot path compiled to machine code by mypyc.

The same source, no second version of anything: beside each module of HOT_PATH stands an extension of the same name,
which Python prefers. Needs a C compiler, mypy and setuptools. Without the variable nothing is compiled and the wheel is
pure Python; what is different is speed alone (docs/performance.md), and the tests run against both.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# What runs for every exchange; and `admin`, for a compiled class has no subclass that is not. The rest of the proxy
# runs once per connection, or once.
HOT_PATH = [
    *(f"sidecar/wire/{name}.py" for name in ("chunks", "head", "framing", "records", "status", "ring")),
    *(
        f"sidecar/proxy/{name}.py"
        for name in ("sockets", "tls_transport", "exchange", "client", "relay", "upstream", "admin")
    ),
]
GROUP = "sidecar_hot_path"


class CompiledHotPath(BuildHookInterface):  # type: ignore[type-arg]
    """Called by hatchling for each wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add the extensions to the wheel, which then is for this machine's kind alone."""
        if version == "editable" or os.environ.get("SIDECAR_COMPILE") != "1":
            return
        self._scratch = tempfile.TemporaryDirectory(prefix="sidecar-compile-")
        for built in compile_hot_path(Path(self.root), Path(self._scratch.name)):
            build_data["force_include"][str(built)] = str(built.relative_to(Path(self._scratch.name, "lib")))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, _version: str, _build_data: dict[str, Any], _artifact_path: str) -> None:
        """The wheel is written."""
        if hasattr(self, "_scratch"):
            self._scratch.cleanup()


def compile_hot_path(root: Path, scratch: Path) -> list[Path]:
    """Compile HOT_PATH below `root`; returns the extensions, which lie in `scratch`/lib as they lie in the wheel."""
    from mypyc.build import mypycify  # noqa: PLC0415  neither is needed for a pure wheel
    from setuptools import Distribution  # noqa: PLC0415

    before = Path.cwd()
    os.chdir(root)  # where mypyc takes module names from
    try:
        options = ["--config-file=", "--strict-bytes", "--ignore-missing-imports", "--follow-imports=silent"]
        extensions = mypycify([*options, *HOT_PATH], opt_level="3", target_dir=str(scratch), group_name=GROUP)
        command = Distribution({"name": GROUP, "ext_modules": extensions}).get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(scratch / "lib"), str(scratch / "temp")
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(before)
    return sorted((scratch / "lib").rglob("*.so"))

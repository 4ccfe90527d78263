"""Hatch's hook for wheels: with `GATEWAY_COMPILE=1` the modules of the request path go in compiled as well."""

# The build environment then needs what the `compile` extra of pyproject.toml names, a C compiler and Python's headers;
# and what the gateway needs, if the compiler is to be trained (tools/compile.py).

from __future__ import annotations

import os
import runpy
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledWheel(BuildHookInterface):  # type: ignore[type-arg, misc]  # its configuration is hatch's affair
    """Adds extension modules to a wheel that is asked to have them, and marks it as one for this platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the wheel's files are collected; an editable install is never compiled."""
        if version != "standard" or os.environ.get("GATEWAY_COMPILE") != "1":
            return
        compile_package = runpy.run_path(str(Path(self.root) / "tools" / "compile.py"))["compile_package"]
        self._folder = tempfile.TemporaryDirectory(prefix="gateway-compile-")
        folder = Path(self._folder.name)
        for extension in compile_package(folder, trained=True):
            build_data["force_include"][str(extension)] = str(extension.relative_to(folder))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called when the wheel is written."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()

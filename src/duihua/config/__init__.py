"""Configs: frozen dataclasses whose field docstrings are the help, filled from YAML, flags and `--set`.

Nothing here imports torch. pydantic and tyro are imported by the functions that need them.
"""

from __future__ import annotations

from duihua.config.build import build, field_help, to_mapping
from duihua.config.flags import parse
from duihua.config.mapping import Located, load_yaml, nearest, override

__all__ = ["Located", "build", "field_help", "load_yaml", "nearest", "override", "parse", "to_mapping"]

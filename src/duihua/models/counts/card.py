"""The card of a model of counts: README.md beside its files, in the form of every other card of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from duihua.files import write_atomic
from duihua.models.model_card import ModelCard, card_text
from duihua.version import __version__


def save_card(directory: Path, card: ModelCard, parameters: int, shape: Mapping[str, Any]) -> None:
    """Write README.md. parameters: numbers that the model consists of. No other library reads the model, so none is named."""
    lines = card_text(card, parameters, shape, __version__).splitlines(keepends=True)
    kept = (line for line in lines if not line.startswith(("library_name:", "pipeline_tag:")))
    write_atomic(Path(directory) / "README.md", "".join(kept).encode("utf-8"))

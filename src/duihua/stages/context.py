"""What every stage is given and what it gives back.

Why one small record each way: the recipe runner, a notebook and a test start a stage in the same manner, and a stage
never asks where it runs. `run(config, context)` reads its input bundles from `context.inputs`, keeps all that it makes
below `context.directory`, and ends by returning a `StageResult`, which it also writes there as `result.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duihua.data.home import data_directory
from duihua.errors import ConfigError
from duihua.files import read_json, write_json

RESULT_FILE = "result.json"


@dataclass(frozen=True)
class StageContext:
    """Where a stage runs.

    directory: the stage's own folder (bundle at its top, checkpoints/, metrics.jsonl, result.json).
    inputs: role ("tokenizer", "policy", "reward", ...) to bundle directory.
    data_directory: where downloaded data and token shards are kept; by default where `duihua data get` puts them.
    device: "cpu", "cuda" or "cuda:N". seed: of the run. threads: CPU threads for torch, None for torch's own choice.
    data: the hashes of the sources where they are known already, else they are taken (stages/data_state.py).
    accept_changed_data: go on from a checkpoint though the data has changed under it.
    """

    directory: Path
    inputs: Mapping[str, Path] = field(default_factory=dict)
    data_directory: Path = field(default_factory=data_directory)
    device: str = "cpu"
    seed: int = 0
    threads: int | None = None
    data: Mapping[str, str] | None = None
    accept_changed_data: bool = False

    def input(self, role: str) -> Path:
        """The input directory for `role`; ConfigError naming the roles that were given when it is missing."""
        if role not in self.inputs:
            given = ", ".join(sorted(self.inputs)) or "none"
            raise ConfigError(
                f"this stage needs the input {role!r}, and was given: {given}",
                where=str(self.directory),
                remedy=f"Run the stage that makes it first, or name a bundle for {role!r}",
            )
        return self.inputs[role]


@dataclass(frozen=True)
class StageResult:
    """What a stage made: `bundle` is a directory, or None where the stage only measures; `metrics` is plain JSON."""

    bundle: Path | None
    metrics: dict[str, Any]

    def save(self, directory: Path) -> None:
        """Write `<directory>/result.json`; the bundle's path is stored relative to it, so that a run can be moved."""
        bundle = None
        if self.bundle is not None:
            inside = self.bundle.resolve().is_relative_to(directory.resolve())
            bundle = str(self.bundle.resolve().relative_to(directory.resolve()) if inside else self.bundle)
        write_json(directory / RESULT_FILE, {"bundle": bundle, "metrics": self.metrics})

    @classmethod
    def load(cls, directory: Path) -> StageResult:
        """Read what `save` wrote."""
        stored = read_json(directory / RESULT_FILE)
        bundle = None if stored["bundle"] is None else directory / stored["bundle"]
        return cls(bundle=bundle, metrics=stored["metrics"])

"""What a run left on disk, read into one value that the summary and the report share.

Why a reader of its own: the two writers must agree on what "the reward stage" is, a report must also come out of a run
that was interrupted, and a metrics file that was cut off by a power failure must cost a line and not the report.
A stage that has no result.json yet simply has an empty `result`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duihua.errors import DataError
from duihua.files import read_json

HEADER_LIMIT_BYTES = 100_000_000
"""As safetensors itself limits the header."""


@dataclass(frozen=True)
class StageRecord:
    """One stage of a run. `rows` are the metrics in step order; `seconds` is None where nothing was timed; `weights` counts
    the numbers in its bundle, None where it has none."""

    name: str
    stage: str
    directory: Path
    seconds: float | None
    status: str
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    unreadable_lines: int
    weights: int | None
    weights_bytes: int
    directory_bytes: int

    def figure(self, name: str) -> float | None:
        """A number of the result; where the stage states none, that of its last metrics row."""
        stated = finite(self.result.get(name))
        return (
            stated if stated is not None else next((finite(row[name]) for row in self.rows[::-1] if name in row), None)
        )


@dataclass(frozen=True)
class RunRecord:
    """A whole run: run.json as it stands, and its stages in order."""

    directory: Path
    run: Mapping[str, Any]
    stages: tuple[StageRecord, ...]

    @property
    def name(self) -> str:
        """The recipe's name where it has one, else the folder's."""
        recipe = self.run.get("recipe")
        if isinstance(recipe, Mapping) and isinstance(recipe.get("name"), str):
            return str(recipe["name"])
        return Path(recipe).stem if isinstance(recipe, str) and recipe else self.directory.resolve().name

    def stage(self, kind: str) -> StageRecord | None:
        """The last stage of this kind that has a result; a recipe may hold two of one kind, and later ones build on it."""
        found = [stage for stage in self.stages if stage.stage == kind and stage.result]
        return found[-1] if found else None

    def result(self, kind: str) -> Mapping[str, Any]:
        """result.json of that stage, or nothing."""
        stage = self.stage(kind)
        return stage.result if stage else {}

    def missing(self) -> list[StageRecord]:
        """Stages of the recipe that have no result so far, in its order."""
        return [stage for stage in self.stages if not stage.result]


def dig(mapping: Any, path: str) -> Any:
    """The value at a dotted path, or None where a step of it is missing: dig({"a": {"b": 1}}, "a.b") == 1."""
    for key in path.split("."):
        if not isinstance(mapping, Mapping) or key not in mapping:
            return None
        mapping = mapping[key]
    return mapping


def finite(value: Any) -> float | None:
    """The value as a float when it is a finite number (a bool is none), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def read_run(run_directory: Path) -> RunRecord:
    """Read a run directory. Raises DuihuaError when run.json is missing, broken or of another shape."""
    path = run_directory / "run.json"
    run = read_json(path)
    if not isinstance(run, dict) or not isinstance(run.get("stages", []), list):
        raise DataError(
            "is not the record of a run", where=str(path), remedy="Point to a folder that `duihua run` has written"
        )
    stages = tuple(_read_stage(run_directory, entry) for entry in run.get("stages", []) if isinstance(entry, dict))
    return RunRecord(directory=run_directory, run=run, stages=stages)


def _read_stage(run_directory: Path, entry: Mapping[str, Any]) -> StageRecord:
    name = str(entry.get("name") or entry.get("stage") or "stage")
    directory = _stage_directory(run_directory, str(entry.get("directory") or name))
    result_path, config_path = directory / "result.json", directory / "settings.json"
    stored = read_json(result_path) if result_path.is_file() else {}
    result = stored.get("metrics") if isinstance(stored, dict) else {}  # as StageResult.save writes it
    config = entry.get("config") or (read_json(config_path) if config_path.is_file() else {})
    rows, unreadable = read_metrics(directory / "metrics.jsonl")
    result = result if isinstance(result, dict) else {}
    timed = finite(entry.get("seconds"))
    files = [file for file in directory.iterdir() if file.is_file()] if directory.is_dir() else []
    weights = [file for file in files if file.suffix == ".safetensors"]
    return StageRecord(
        name=name,
        stage=str(entry.get("stage") or name),
        directory=directory,
        seconds=timed if timed is not None else finite(result.get("seconds")),
        status=str(entry.get("status") or ("finished" if result else "unfinished")),
        config=config if isinstance(config, dict) else {},
        result=result,
        rows=rows,
        unreadable_lines=unreadable,
        weights=sum(_stored_numbers(file) for file in weights) or None,
        weights_bytes=sum(file.stat().st_size for file in weights),
        directory_bytes=sum(file.stat().st_size for file in files),
    )


def _stored_numbers(path: Path) -> int:
    """How many numbers a safetensors file holds, by its header: eight bytes of length, then JSON. 0 for a broken file."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= HEADER_LIMIT_BYTES:
            return 0
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return 0
    tensors = [one for name, one in header.items() if name != "__metadata__"] if isinstance(header, dict) else []
    return sum(
        math.prod(one["shape"]) for one in tensors if isinstance(one, dict) and isinstance(one.get("shape"), list)
    )


def _stage_directory(run_directory: Path, stated: str) -> Path:
    """A stage's folder; a run that was moved or copied still finds its own stages by their last name."""
    directory = run_directory / stated
    if directory.is_dir():
        return directory
    return run_directory / Path(stated).name


def read_metrics(path: Path) -> tuple[tuple[Mapping[str, Any], ...], int]:
    """Rows by step (the later line wins where a resumed run wrote a step again), and the count of unreadable lines."""
    if not path.is_file():
        return (), 0
    by_step: dict[float, Mapping[str, Any]] = {}
    unreadable = 0
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                row = None
            step = finite(row.get("step")) if isinstance(row, dict) else None
            if step is None:
                unreadable += 1
                continue
            by_step[step] = {**by_step.get(step, {}), **row}
    return tuple(by_step[step] for step in sorted(by_step)), unreadable

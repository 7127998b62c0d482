"""The cells of a race in a file that grows by a line each, so that a race which was stopped goes on where it was."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from duihua import console
from duihua.files import sha256_json
from race.systems import Setup, run_system


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training. label: how the table calls it."""

    label: str
    system: str
    seconds: float
    seed: int
    setup: Setup

    @property
    def key(self) -> str:
        """What decides the row."""
        decides = [self.system, self.seconds, self.seed, self.setup.decides(self.system)]
        return sha256_json(decides)[:16]


def run_cells(cells: Iterable[Cell], output: Path) -> list[dict[str, Any]]:
    """The rows of all cells in their order: stored ones from `output`, the others run one after another and appended."""
    output.parent.mkdir(parents=True, exist_ok=True)
    stored = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
    known = {row["key"]: row for row in map(json.loads, stored)}
    rows = []
    for cell in cells:
        if cell.key not in known:
            console.say(f"{cell.label}, seed {cell.seed}: {cell.seconds:g} seconds of training")
            made = run_system(cell.system, cell.seconds, cell.seed, cell.setup)
            about = {"key": cell.key, "label": cell.label, "system": cell.system}
            known[cell.key] = about | {"seconds_given": cell.seconds, "seed": cell.seed} | made
            with open(output, "a", encoding="utf-8") as file:
                file.write(json.dumps(known[cell.key]) + "\n")
            console.say(f"{cell.label}, seed {cell.seed}: {made['bits_per_byte']:.4f} bits per byte")
        rows.append({**known[cell.key], "label": cell.label})
    return rows


def medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One system's rows as one: the median of each figure over the seeds."""
    figures = ("bits_per_byte", "seconds", "tokens", "parameters", "steps", "setup_seconds", "step_seconds")
    middle = {name: statistics.median(row[name] for row in rows) for name in figures}
    return {**middle, "seeds": [row["seed"] for row in rows], "each": [row["bits_per_byte"] for row in rows]}

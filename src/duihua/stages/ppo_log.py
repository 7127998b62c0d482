"""The rows that a training on rollouts logs, read back: one an update, and those of a rollout put together.

Why apart from the doctor: what is written while a training goes on, or was broken off in the middle of a line, must be read
with as much care as it is judged, and other readers of the log need the rows without the judgement. No torch here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from duihua.errors import DataError

METRICS = "metrics.jsonl"
Row = dict[str, float]


def read_metrics(run: Path) -> list[Row]:
    """The rows of a stage directory's metrics.jsonl, one an update, without those of evaluations on the way; DataError where
    there are none of PPO, or where a line is broken. A last line without its end is one that a crash cut, or that is being
    written just now, and is left out."""
    path = run / METRICS if run.is_dir() else run
    if not path.is_file():
        raise DataError(f"no {METRICS} there", where=str(run), remedy="Name the folder that `duihua ppo` wrote")
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    found: list[Any] = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):  # what stands behind the last end of a line: nothing, or half a line
                break
            raise DataError("a line that is no JSON", where=f"{path}:{number}", remedy="Mend or remove it") from error
    rows = rollout_rows(found)
    if not rows:
        raise DataError("holds no figures of PPO", where=str(path), remedy="Name the folder that `duihua ppo` wrote")
    return rows


def rollout_rows(rows: Iterable[Any]) -> list[Row]:
    """Of logged rows those of updates on a rollout, with their finite numbers; none where the first of them knows no KL, for
    then they are of another kind of training."""
    numbers = [
        {name: float(value) for name, value in row.items() if isinstance(value, int | float) and math.isfinite(value)}
        for row in rows
        if isinstance(row, Mapping)
    ]
    found = [row for row in numbers if "iteration" in row]
    return found if found and "kl" in found[0] else []


def by_rollout(rows: Sequence[Row]) -> list[Row]:
    """The row of the first update of each rollout, whose rollout figures are those of the replies; loss figures as means."""
    groups: dict[float, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["iteration"], []).append(row)
    return [
        {**group[0], **{name: mean(group, name) for name in ("clip_fraction", "approximate_kl") if name in group[0]}}
        for _, group in sorted(groups.items())
    ]


def mean(rows: Sequence[Row], name: str) -> float:
    """Mean of a figure over the rows that have it; not a number where none has."""
    values = [row[name] for row in rows if name in row]
    return sum(values) / len(values) if values else math.nan


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's correlation; 0 for fewer than three values or where one of the two does not vary."""
    if len(x) < 3:
        return 0.0
    centre_x, centre_y = sum(x) / len(x), sum(y) / len(y)
    dx, dy = [value - centre_x for value in x], [value - centre_y for value in y]
    scale = math.sqrt(sum(v * v for v in dx) * sum(v * v for v in dy))
    return sum(a * b for a, b in zip(dx, dy, strict=True)) / scale if scale > 0 else 0.0

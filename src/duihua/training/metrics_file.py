"""metrics.jsonl: one line a log step. A resumed run cuts off the lines of the steps that it will do again.

A line is appended, so a crash can only cut the last one, and `read_metrics` leaves that out. Before a checkpoint is put in
place the file is synced: a checkpoint that is there has all lines up to its step. The file is never rewritten in place.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from duihua.files import write_atomic

SAMPLE_PROMPT, SAMPLE_TEXT = "sample_prompt", "sample_text"
"""Names, among an evaluation's figures, of what a model was given and what it wrote."""


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line cut by a crash is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").split(
        "\n"
    ):  # splitlines cuts within texts, at U+2028
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


def write_line(path: Path, line: Mapping[str, Any]) -> None:
    """Append a line. Numbers that are not finite are left out: JSON has none, and a page that reads the file would fail."""
    kept = {name: value for name, value in line.items() if not isinstance(value, float) or math.isfinite(value)}
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(kept, ensure_ascii=False) + "\n")


def sync_metrics(path: Path) -> None:
    """Make the lines that were written durable."""
    if path.exists():
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def cut_metrics(path: Path, last_step: int) -> None:
    """Drop the lines of steps that will be run again, and a line that a crash cut off; nothing is written without need."""
    if not path.exists():
        return
    kept = [line for line in read_metrics(path) if line.get("step", 0) <= last_step]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
    if text.encode("utf-8") != path.read_bytes():
        write_atomic(path, text.encode("utf-8"))


def best_step(path: Path, metric: str, highest: bool, among: Collection[int]) -> int | None:
    """The step of `among` whose evaluation gave the best value of `metric` (of equal ones the earliest); None for none.

    A line of an evaluation has no learning rate, so that a figure of training of the same name does not count.
    """
    found = [
        (-float(line[metric]) if highest else float(line[metric]), int(line["step"]))
        for line in read_metrics(path)
        if metric in line and "learning_rate" not in line and line.get("step") in among
    ]
    return min(found)[1] if found else None

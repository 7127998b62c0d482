"""metrics.jsonl: one line a log step. A resumed run cuts off the lines of the steps that it will do again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line cut by a crash is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


def cut_metrics(path: Path, last_step: int) -> None:
    """Drop the lines of steps that will be run again."""
    if path.exists():
        kept = [line for line in read_metrics(path) if line.get("step", 0) <= last_step]
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept), encoding="utf-8")

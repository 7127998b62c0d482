"""progress.json: what a training is going to do, for whoever watches it.

metrics.jsonl says what was done. How many steps there will be, how many bytes a token stands for and how much work it is are
known when training begins and nowhere else: a dial may have set them, or the length of an epoch. With them a watcher tells
the remaining time, bits per byte and how much of the machine is used, without asking the process that trains. No torch here:
to watch is to be quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from duihua.errors import DuihuaError
from duihua.files import read_json, write_json

PROGRESS_FILE = "progress.json"


def write_plan(directory: Path, plan: Mapping[str, Any]) -> None:
    """Write `directory`/progress.json, unless it stands there as it is."""
    if read_plan(directory) != dict(plan):
        write_json(directory / PROGRESS_FILE, dict(plan))


def read_plan(directory: Path) -> dict[str, Any]:
    """What was written; nothing where there is none, or none that can be read."""
    try:
        found = read_json(directory / PROGRESS_FILE)
    except DuihuaError:
        return {}
    return found if isinstance(found, dict) else {}

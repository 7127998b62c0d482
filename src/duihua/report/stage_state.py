"""What a stage's folder says about itself: new, finished, unfinished or stale (the table stands in runner.py).

Why sizes of the bundle's files are kept too: a bundle that was cut off or half deleted later must be made again, not
skipped and met by the next stage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from duihua.errors import DuihuaError
from duihua.files import read_json
from duihua.report.fingerprint import FINGERPRINT_FILE, what_changed
from duihua.report.lock import LOCK_FILE
from duihua.stages.context import RESULT_FILE, StageResult
from duihua.stages.data_state import DATA_FILE
from duihua.stages.execution import CONFIG_FILE, is_finished

NOT_BUNDLE = (FINGERPRINT_FILE, RESULT_FILE, DATA_FILE, "metrics.jsonl")  # of the stage itself; two of them hold times


def stage_state(folder: Path, fingerprint: str, parts: dict[str, Any]) -> tuple[str, list[str]]:
    """ "new", "finished", "unfinished" or "stale", and why."""
    if not folder.exists() or (folder.is_dir() and all(_passing(entry) for entry in folder.iterdir())):
        return "new", []
    try:
        stored = read_json(folder / FINGERPRINT_FILE)
        before, there = stored["parts"], stored["fingerprint"]
    except (DuihuaError, KeyError, TypeError, NotADirectoryError):
        return "stale", ["it does not say what it was made from"]
    if there != fingerprint:
        if not _has_made_anything(folder):
            return "new", []
        return "stale", what_changed(before, parts) or ["its record was changed"]
    if not is_finished(folder):
        return "unfinished", ["it was interrupted"]
    changed = damaged_files(folder, stored.get("files"))
    if changed:
        return "unfinished", [f"{name} is missing or cut off" for name in changed]
    return "finished", []


def _passing(entry: Path) -> bool:
    """Whether a file may lie in a folder where nothing has begun: the lock, or what kill -9 left of the first write."""
    return entry.name == LOCK_FILE or (entry.name.startswith(".") and entry.name.endswith(".part"))


def _has_made_anything(folder: Path) -> bool:
    """Whether a stage left more than its settings: one that was refused (a wrong column) may be corrected in place."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return any(file.name not in (FINGERPRINT_FILE, CONFIG_FILE, DATA_FILE) and not _passing(file) for file in files)


def bundle_sizes(result: StageResult) -> dict[str, int]:
    """Name -> bytes of the files of a result's bundle."""
    if result.bundle is None:
        return {}
    return {
        file.name: file.stat().st_size
        for file in sorted(result.bundle.iterdir())
        if file.is_file() and not file.name.startswith(".") and file.name not in NOT_BUNDLE
    }


def damaged_files(folder: Path, sizes: Any) -> list[str]:
    """Files of the bundle that are gone or have another size than when the stage ended.

    None recorded: the process was killed between the result and this record; the result alone is then believed.
    """
    if not isinstance(sizes, dict):
        return []
    bundle = StageResult.load(folder).bundle or folder
    return [
        name for name, size in sizes.items() if not (bundle / name).is_file() or (bundle / name).stat().st_size != size
    ]

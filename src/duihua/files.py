"""Writing files so that a reader never meets half of one.

Why: training is killed at any moment (power, memory, Ctrl-C). Every file that a later command trusts is written aside,
synced and renamed, which POSIX makes atomic within one file system.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from duihua.errors import DuihuaError


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that the old content or the new one is there, never a part. Creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise DuihuaError(
            f"cannot write: {error.strerror or error}",
            where=str(path),
            remedy="Free some space or choose another folder",
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Remove the half-written files that killed attempts have left below `folder`. For whoever holds the folder alone."""
    for leftover in folder.rglob(".*.part"):
        if leftover.is_file():
            leftover.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically."""
    text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=False) + "\n"
    write_atomic(path, text.encode("utf-8"))


def read_json(path: Path) -> Any:
    """Read a JSON file; a missing or broken one raises DuihuaError naming file and line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DuihuaError("no such file", where=str(path), remedy="Check the path") from error
    except UnicodeDecodeError as error:
        raise DuihuaError(
            f"not UTF-8 at byte {error.start}", where=str(path), remedy="Write it again as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise DuihuaError(
            f"broken JSON: {error.msg}", where=f"{path}:{error.lineno}:{error.colno}", remedy="Mend or remove the file"
        ) from error


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a value's canonical JSON (sorted keys, no spaces): the fingerprint of configs and inputs."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sync_directory(path: Path) -> None:
    """Make renames inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_space(path: Path, bytes_needed: int) -> None:
    """Raise DuihuaError when the file system of `path` has less free space than `bytes_needed`."""
    folder = path
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < bytes_needed:
        raise DuihuaError(
            f"needs {bytes_needed / 2**20:.0f} MiB of disk, {free / 2**20:.0f} MiB are free",
            where=str(path),
            remedy="Free some space or choose another folder",
        )


def directory_size(path: Path) -> int:
    """Bytes of all files below `path`."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

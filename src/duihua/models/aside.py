"""Writing a directory of a model aside, and putting it in place whole.

Why: a process can be killed at any moment, and half a bundle must never be read as one. A new directory appears by one
rename; in an existing one config.json is taken away first and put back last.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from duihua.errors import BundleError
from duihua.files import sync_directory


@contextmanager
def written_aside(directory: Path) -> Iterator[Path]:
    """A folder to write a bundle's files into; when the block ends well they are moved to `directory`, where other files
    stay. Raises BundleError where the file system refuses."""
    fresh = not directory.exists()
    folder, name = (directory.parent, f".{directory.name}") if fresh else (directory, ".bundle")
    for remains in folder.glob(f"{glob.escape(name)}.*.part"):  # of a process that was killed while saving
        shutil.rmtree(remains, ignore_errors=True)
    aside = folder / f"{name}.{os.getpid()}.part"
    try:
        aside.mkdir(parents=True)
        yield aside
        _move_into_place(aside, directory, fresh)
    except (OSError, SafetensorError) as error:  # the second one is what safetensors makes of the first
        problem = f"cannot write the bundle: {getattr(error, 'strerror', None) or error}"
        raise BundleError(problem, where=str(directory), remedy="Free some space or choose another folder") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _move_into_place(aside: Path, directory: Path, fresh: bool) -> None:
    if fresh:
        sync_directory(aside)
        aside.replace(directory)
        sync_directory(directory.parent)
        return
    (directory / "config.json").unlink(missing_ok=True)
    sync_directory(directory)
    for file in sorted(aside.iterdir(), key=lambda file: file.name == "config.json"):
        file.replace(directory / file.name)
    sync_directory(directory)

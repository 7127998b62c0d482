"""One run at a time in a directory.

Why flock and not a file that says "I am here": the kernel drops the lock when the process ends, however it ends, so a
run that was killed with -9 leaves nothing to clean up and a number in a file is never believed. The file holds the
process id only so that the error can name it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from duihua.errors import DuihuaError

LOCK_FILE = ".lock"


@contextmanager
def only_run(directory: Path) -> Iterator[None]:
    """Hold the directory for the time of the block. Raises DuihuaError naming the process that has it already."""
    path = directory / LOCK_FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DuihuaError(
            f"cannot be written to: {error.strerror}",
            where=str(directory),
            remedy="Choose another folder with --output",
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(descriptor, 32).decode("ascii", "replace").strip()
            raise DuihuaError(
                f"another run is using this folder{f' (process {owner})' if owner else ''}",
                where=str(directory),
                remedy="Wait for it or stop it, or choose another folder with --output",
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
        yield
    finally:
        os.close(descriptor)

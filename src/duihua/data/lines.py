"""Files with one text a line, as translations and transcripts are kept: whole (plain or .gz, `-` for standard input), or as a
stream.

A line ends at a line feed (a carriage return before it goes too) and nowhere else: other separators of Unicode, which
Python's `splitlines` would cut at, stand inside real sentences, and line i of one file must stay line i of the other.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

from duihua.data import rows
from duihua.errors import DataError

STANDARD_INPUT = "standard input"
"""What the places of its lines begin with."""


def read_lines(path: str) -> list[str]:
    """All lines, without their ends. Raises DataError for a missing file or one that is not UTF-8."""
    lines = [line.removesuffix("\r") for line in read_text(path).split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def read_text(path: str) -> str:
    """All of a file, without a byte order mark. Raises DataError for a missing file or one that is not UTF-8."""
    try:
        if path == "-":
            raw = sys.stdin.buffer.read()
        elif path.lower().endswith(".gz"):
            raw = gzip.decompress(Path(path).expanduser().read_bytes())
        else:
            raw = Path(path).expanduser().read_bytes()
    except FileNotFoundError as error:
        raise DataError("no such file", where=path, remedy="Check the path") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be read: {_why(error)}", where=path, remedy="Check the file") from error
    try:
        return raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError("bytes that are not UTF-8", where=f"{path}:{line}", remedy="Write the file as UTF-8") from error


def stream_lines(path: Path | str) -> Iterator[str]:
    """The lines of a file ("-": standard input) one by one, packed as .gz or .zst or not; its end need not be known. Raises
    DataError naming the line for bytes that are not UTF-8, and for a file that cannot be read."""
    try:
        numbered = rows.read_lines(Path(path)) if path != "-" else rows.lines_of(sys.stdin.buffer, STANDARD_INPUT)
        for _, line in numbered:
            if isinstance(line, rows.Fault):
                raise DataError(line.reason, where=line.place, remedy="Write the file as UTF-8")
            yield line
    except FileNotFoundError as error:
        raise DataError("no such file", where=str(path), remedy="Check the path") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be read: {_why(error)}", where=str(path), remedy="Check the file") from error


def _why(error: Exception) -> str:
    """What the system says of it, without its number and the path, which stands before."""
    return str(getattr(error, "strerror", None) or error)

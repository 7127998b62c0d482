"""Rows out of files: txt, md, jsonl, json, csv, tsv and parquet, each (but parquet) also packed as .gz or .zst.

A row is a mapping with the place that it stands at ("notes.jsonl:17"), so that whoever finds fault with it can say where.
What cannot be read (bytes that are not UTF-8, broken JSON, a line of CSV with too many cells) is a `Fault`, not an error:
readers count faults and go on, the checker lists them. Files are read as a stream; only a .json file is held whole.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from duihua.errors import DataError

DOCUMENT_CHARACTERS = 8192
"""A plain text file is one document when shorter; a longer one is cut at the first empty line after so many characters,
and where there is none at the end of a line after eight times as many."""
JSON_LIMIT_BYTES = 1 << 30
LINE_LIMIT_BYTES = 64 << 20

_SURROGATE = re.compile("[\ud800-\udfff]")

TEXT_SUFFIXES = (".txt", ".md")
TABLE_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
PACKED_SUFFIXES = (".gz", ".zst")
NOT_UTF8 = "bytes that are not UTF-8"
TO_UTF8 = "Write it as UTF-8, such as iconv -f GBK -t UTF-8 OLD > NEW for a file in GBK"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Row:
    """What a file holds at one place. `place` is file:line, or file:record where a format has no lines."""

    values: dict[str, Any]
    place: str


@dataclass(frozen=True)
class Fault:
    """Something that gives no row, and why."""

    reason: str
    place: str


def form_of(path: Path) -> str | None:
    """The suffix that says how to read a file (".jsonl" for "a.jsonl.gz"); None for a file of another type."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED_SUFFIXES:
        suffixes.pop()
        return suffixes[-1] if suffixes and suffixes[-1] in (*TEXT_SUFFIXES, *TABLE_SUFFIXES[:-1]) else None
    return suffixes[-1] if suffixes and suffixes[-1] in (*TEXT_SUFFIXES, *TABLE_SUFFIXES) else None


def read_rows(path: Path) -> Iterator[Row | Fault]:
    """All rows of a file, in its order. A plain text file gives rows with the one column "text".

    Raises DataError where the file itself cannot be read: missing, packed wrongly, broken as a whole.
    """
    form = form_of(path)
    if form is None:
        raise DataError(
            "a file of a type that is not read",
            where=str(path),
            remedy=f"Read are {', '.join((*TEXT_SUFFIXES, *TABLE_SUFFIXES))}, also with .gz or .zst",
        )
    reader = {".jsonl": _json_lines, ".json": _json, ".csv": _table, ".tsv": _table, ".parquet": _parquet}.get(
        form, _text
    )
    try:
        if form != ".parquet":
            _refuse_utf16(path)
        yield from reader(path)
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, FileNotFoundError):
            raise DataError("no such file", where=str(path), remedy="Check the path") from error
        raise DataError(f"cannot be read: {error}", where=str(path), remedy="Mend the file or leave it out") from error


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file's unpacked bytes."""
    packed = path.suffix.lower()
    if packed == ".gz":
        with gzip.open(path, "rb") as unpacked:
            yield cast(BinaryIO, unpacked)
    elif packed == ".zst":
        import zstandard

        try:
            with (
                open(path, "rb") as file,
                zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as raw,
            ):
                yield io.BufferedReader(raw)
        except zstandard.ZstdError as error:
            raise DataError(f"not a zst file: {error}", where=str(path), remedy="Pack it again") from error
    else:
        with open(path, "rb") as file:
            yield file


def read_lines(path: Path) -> Iterator[tuple[int, str | Fault]]:
    """(line number from 1, the line without its end, or a fault), a leading byte order mark removed."""
    with _opened(path) as file:
        yield from lines_of(file, str(path))


def lines_of(file: BinaryIO, name: str) -> Iterator[tuple[int, str | Fault]]:
    """As `read_lines`, of an open file; name: what its places begin with."""
    number = 0
    while line := file.readline(LINE_LIMIT_BYTES):
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) >= LINE_LIMIT_BYTES and not line.endswith(b"\n"):
            raise DataError(
                f"a line of more than {LINE_LIMIT_BYTES >> 20} MiB",
                where=f"{name}:{number}",
                remedy="Break the file into lines",
            )
        try:
            yield number, line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield number, Fault(NOT_UTF8, f"{name}:{number}:{error.start + 1}")


def _refuse_utf16(path: Path) -> None:
    with _opened(path) as file:
        if file.read(2) in UTF16_MARKS:
            raise DataError(
                "the file is UTF-16, and UTF-8 is read",
                where=f"{path}:1",
                remedy="Write it anew: iconv -f UTF-16 -t UTF-8 OLD > NEW",
            )


def _text(path: Path) -> Iterator[Row | Fault]:
    """Documents of a plain text file. A line that is not UTF-8 is left out, the rest of its document kept."""
    lines: list[str] = []
    size, first, given = 0, 1, False
    for number, line in read_lines(path):
        if isinstance(line, Fault):
            yield line
            continue
        if not lines:
            first = number
        lines.append(line)
        size += len(line) + 1
        at_gap = size >= DOCUMENT_CHARACTERS and not line.strip()
        if at_gap or size >= 8 * DOCUMENT_CHARACTERS:
            yield Row({"text": "\n".join(lines).strip("\n")}, f"{path}:{first}")
            lines, size, given = [], 0, True
    if not given or any(line.strip() for line in lines):
        yield Row({"text": "\n".join(lines).strip("\n")}, f"{path}:{first}")


def _may_be_broken(text: str | bytes) -> bool:
    """Whether JSON has escapes of surrogates. A pair of them is a character; one alone is none, and nothing could write it."""
    return "\\ud" in text.lower() if isinstance(text, str) else b"\\ud" in text.lower()


def _why(error: Exception) -> str:
    return str(getattr(error, "msg", "nested too deeply" if isinstance(error, RecursionError) else error))


def _as_row(value: Any, place: str, may_be_broken: bool = False) -> Row | Fault:
    if may_be_broken and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        return Fault("half a character (a surrogate alone)", place)
    if isinstance(value, dict):
        return Row(value, place)
    if isinstance(value, str):
        return Row({"text": value}, place)
    if isinstance(value, list):
        return Row({"messages": value}, place)
    return Fault("not an object", place)


def _json_lines(path: Path) -> Iterator[Row | Fault]:
    given = False
    for number, line in read_lines(path):
        place = f"{path}:{number}"
        if not given and isinstance(line, str) and line.strip() in ("[", "{", "[{"):
            name = path.name.replace(".jsonl", ".json")
            raise DataError(
                "one JSON text over several lines, where a .jsonl file has a record on each",
                where=place,
                remedy=f"Name it .json, such as {name}",
            )
        given = given or isinstance(line, Fault) or bool(line.strip())
        if isinstance(line, Fault):
            yield line
        elif line.strip():
            try:
                yield _as_row(json.loads(line), place, _may_be_broken(line))
            except (ValueError, RecursionError) as error:
                yield Fault(f"bad JSON: {_why(error)}", f"{place}:{getattr(error, 'colno', 1)}")


def _json(path: Path) -> Iterator[Row | Fault]:
    """A list of records, or an object whose values are records or a list of them (as `{"data": [...]}`)."""
    with _opened(path) as file:
        raw = file.read(JSON_LIMIT_BYTES + 1)
    if len(raw) > JSON_LIMIT_BYTES:
        raise DataError(
            "a .json file of more than 1 GiB", where=str(path), remedy="Write it as .jsonl, which is streamed"
        )
    try:
        value = json.loads(raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(NOT_UTF8, where=f"{path}:{line}", remedy=TO_UTF8) from error
    except (ValueError, RecursionError) as error:
        place = f"{path}:{getattr(error, 'lineno', 1)}:{getattr(error, 'colno', 1)}"
        raise DataError(f"bad JSON: {_why(error)}", where=place, remedy="Mend it") from error
    if isinstance(value, dict):
        lists = [inner for inner in value.values() if isinstance(inner, list)]
        if len(lists) == 1 and all(isinstance(item, dict) for item in lists[0]) and len(value) == 1:
            value = lists[0]
        elif value and all(isinstance(inner, dict) for inner in value.values()):
            value = list(value.values())
        else:
            value = [value]
    if not isinstance(value, list):
        raise DataError("neither a list of records nor an object", where=str(path), remedy="Write a list of objects")
    broken = _may_be_broken(raw)
    for index, item in enumerate(value):
        yield _as_row(item, f"{path}: record {index + 1}", broken)


def _table(path: Path) -> Iterator[Row | Fault]:
    """CSV or TSV with a header line. Quoting as Python's csv reads it; a TSV has none, as is usual for data sets."""
    form = form_of(path)
    with _opened(path) as file:
        # surrogateescape keeps bytes that are not UTF-8 visible as lone surrogates: the row is then a fault, not the file
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        if form == ".tsv":
            reader = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
        else:
            reader = csv.reader(text)
        header: list[str] | None = None
        begins = 1
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield Fault(f"bad CSV: {error}", f"{path}:{begins}")
                begins = reader.line_num + 1
                continue
            if cells is None:
                break
            place, begins = f"{path}:{begins}", reader.line_num + 1
            if not cells:
                continue
            if any("\ud800" <= character <= "\udfff" for cell in cells for character in cell):
                yield Fault(NOT_UTF8, place)
            elif header is None:
                header = cells
                _check_separator(header, form, place)
            elif len(cells) != len(header):
                yield Fault(f"{len(cells)} cells where the header has {len(header)}", place)
            else:
                yield Row(dict(zip(header, cells, strict=True)), place)


def _check_separator(header: list[str], form: str | None, place: str) -> None:
    """Raise DataError where the header of a .csv is one cell that is parted by something else than commas."""
    if form == ".csv" and len(header) == 1:
        for separator, name, remedy in (
            (";", "semicolons", "Save it with commas between the columns"),
            ("\t", "tabs", "Name it .tsv"),
        ):
            if separator in header[0]:
                raise DataError(f"the columns are parted by {name}, not by commas", where=place, remedy=remedy)


def _parquet(path: Path) -> Iterator[Row | Fault]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            index = 0
            for batch in file.iter_batches(batch_size=256):
                for values in batch.to_pylist():
                    index += 1
                    yield Row(values, f"{path}: record {index}")
    except pyarrow.ArrowException as error:
        raise DataError(f"not a readable parquet file: {error}", where=str(path), remedy="Write it again") from error

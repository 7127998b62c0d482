"""A user's own files as a source: one file, a folder with everything below it, or a glob.

Files are taken in the order of their names, so a run is the same on every machine. A record that cannot be used is
counted with its reason and the run goes on; a wrong column, an unreadable file and a source without a single usable
record stop it at once, because there somebody meant something else.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from duihua.data.columns import ColumnPlan, plan_columns, to_record
from duihua.data.records import HELD_OUT_SHARE, BadRecordError, Kind, LeftOut, Record, Split, is_held_out
from duihua.data.rows import NOT_UTF8, TEXT_SUFFIXES, TO_UTF8, Fault, Row, form_of, read_rows
from duihua.data.source import ColumnsConfig, SourceConfig, Terms
from duihua.errors import ConfigError, DataError
from duihua.files import sha256_file, sha256_json

OWN_TERMS = Terms("the user's own files", "", "provided by the user", "Whoever trains on them answers for the rights.")


def find_files(path: str) -> tuple[list[Path], list[Path]]:
    """(files that are read, files of other types) that `path` (file, folder or glob) names, each sorted.

    Files and folders whose name begins with a dot are passed over. Raises DataError where nothing is named.
    """
    place = Path(path).expanduser()
    if place.is_file():
        found = [place]
    elif place.is_dir():
        found = [file for file in place.rglob("*") if file.is_file() and not _hidden(file.relative_to(place))]
    else:
        found = [Path(name) for name in glob.glob(str(place), recursive=True) if Path(name).is_file()]  # noqa: PTH207
        if not found:
            raise DataError("no such file or folder", where=path, remedy="Check the path")
    readable = sorted(file for file in found if form_of(file) is not None)
    others = sorted(file for file in found if form_of(file) is None)
    if not readable:
        raise DataError(
            "no file of a type that is read", where=path, remedy="Give txt, md, jsonl, json, csv, tsv or parquet files"
        )
    return readable, others


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


class UserFiles:
    """A source that reads the user's own files."""

    def __init__(self, config: SourceConfig, held_out_share: float = HELD_OUT_SHARE) -> None:
        """Raises DataError where `config.path` names nothing that can be read."""
        self._config, self.held_out_share = config, held_out_share
        self.name = config.path
        self.kind: Kind = config.kind or "text"
        self.language = config.language or "mixed"
        self.terms = OWN_TERMS
        self.left_out = LeftOut()
        self.files, self.other_files = find_files(config.path)
        if self.kind != "text":
            plain = [file for file in self.files if form_of(file) in TEXT_SUFFIXES]
            self.files = [file for file in self.files if file not in plain]
            self.other_files = sorted([*self.other_files, *plain])
            if not self.files:
                raise ConfigError(
                    f"a plain text file holds no {self.kind}",
                    where=str(plain[0]),
                    remedy="Use jsonl, json, csv, tsv or parquet for them, or set kind: text",
                )

    def records(self, split: Split) -> Iterator[Record]:
        """One pass over a split; what is left out is counted in a new `left_out`."""
        left_out = self.left_out = LeftOut()
        for file in self.other_files:
            left_out.add(f"file of a type that is not read as {self.kind} ({file.suffix or 'no suffix'})", str(file))
        return self._pass(split, left_out)

    def _pass(self, split: Split, left_out: LeftOut) -> Iterator[Record]:
        usable = 0
        for result in self.results(left_out):
            if isinstance(result, Fault):
                left_out.add(result.reason, result.place)
                continue
            usable += 1
            if is_held_out(result[0], self.held_out_share) == (split == "heldout"):
                yield result[0]
        if not usable:
            first = next(iter(left_out.first_place.items()), ("the files are empty", self.name))
            remedy = TO_UTF8 if first[0] == NOT_UTF8 else "Run `duihua data check` on it"
            raise DataError(f"no usable record: {first[0]}", where=first[1] or self.name, remedy=remedy)

    def results(self, notes: LeftOut) -> Iterator[tuple[Record, str] | Fault]:
        """Every record with its place, or why there is none: one pass over all files, both splits.

        Raises DataError for a wrong column, a file that cannot be read.
        """
        for file in self.files:
            plan: ColumnPlan | None = None
            for row in read_rows(file):
                if isinstance(row, Fault):
                    yield row
                    continue
                if plan is None:
                    # plain text has one column of its own, whatever the other files of the folder call theirs
                    columns = ColumnsConfig() if form_of(file) in TEXT_SUFFIXES else self._config.columns
                    plan = plan_columns(self.kind, columns, row.values, row.place)
                yield self._result(row, plan, notes)

    def _result(self, row: Row, plan: ColumnPlan, notes: LeftOut) -> tuple[Record, str] | Fault:
        try:
            return to_record(row.values, plan, self.name, self._config.language, notes, row.place), row.place
        except BadRecordError as bad:
            return Fault(bad.reason, f"{row.place}: {bad.field}" if bad.field else row.place)

    def fingerprint(self) -> str:
        """Hash of the files' content and of the settings that decide how they are read."""
        config = self._config
        settings = [self.kind, config.language, asdict(config.columns)]
        return sha256_json([settings, [[file.name, sha256_file(file)] for file in self.files]])

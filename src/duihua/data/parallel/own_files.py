"""A user's own parallel texts: a table with two columns, or two files of aligned lines.

    {path: pairs.tsv, languages: fr-en, columns: {first: "1", second: "2"}}    a table without a header, by columns' numbers
    {path: pairs.jsonl, languages: fr-en}                                      columns fr and en, or source and target
    {path: train.fr, aligned: train.en, languages: fr-en}                      line n of both files says the same

A line that cannot be used (an empty side, bytes that are not UTF-8) is counted with its place and the run goes on; two aligned
files of unequal length stop it at once, because one missing line makes all pairs behind it wrong without a word.

The parts are made by groups (`groups.py`), so that no text of the test stands in training on either side, however often it
occurs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from duihua.data.columns import plan_columns, to_record
from duihua.data.parallel.base import TEST_SHARE, VALIDATION_SHARE, HasParts, Part, parse_languages
from duihua.data.parallel.groups import Result, split_pairs
from duihua.data.records import BadRecordError, Kind, LeftOut, Parallel, Record, Split
from duihua.data.rows import Fault, form_of, read_lines, read_rows
from duihua.data.source import ColumnsConfig, Source, SourceConfig
from duihua.data.user_files import OWN_TERMS, find_files
from duihua.data.views import ApartSource
from duihua.errors import ConfigError, DataError
from duihua.files import sha256_file, sha256_json


def open_own(config: SourceConfig) -> Source:
    """The source that `config` (with a path) asks for. Raises ConfigError where it does not say enough, DataError for no
    file."""
    if config.kind not in ("", "parallel"):
        raise ConfigError(
            f"`languages` and `aligned` are of parallel texts, and kind is {config.kind}",
            where=f"source {config.path}",
            remedy="Set kind: parallel",
        )
    if not config.languages:
        raise ConfigError(
            "which languages the texts are in",
            where=f"source {config.path}",
            remedy="Set languages, as fr-en: first column or file, then second",
        )
    if not config.heldout:
        return ParallelFiles(config)
    if config.aligned:
        raise ConfigError(
            "two aligned files cannot have a held-out path beside them",
            where=f"source {config.path}",
            remedy="Leave `heldout` out: parts are made by groups; or give tables",
        )
    apart = replace(config, path=config.heldout, heldout="")
    return ParallelApart(ParallelFiles(config, 0.0), ParallelFiles(apart, 0.0, 0.0))


class ParallelFiles:
    """A source that reads the user's own pairs."""

    kind: Kind = "parallel"

    def __init__(
        self, config: SourceConfig, test_share: float = TEST_SHARE, validation_share: float = VALIDATION_SHARE
    ) -> None:
        """Raises ConfigError for languages that are none, DataError where a path names nothing that can be read."""
        self._config, self._shares = config, (test_share, validation_share)
        self.languages = parse_languages(config.languages, f"source {config.path}, languages")
        self.language = "-".join(self.languages)
        self.name, self.terms, self.left_out = config.path, OWN_TERMS, LeftOut()
        if config.aligned:
            self.files = [_existing(config.path), _existing(config.aligned)]
        else:
            numbered = all(_number(column) for column in (config.columns.first, config.columns.second))
            path = Path(config.path).expanduser()
            self.files = [path] if numbered and path.is_file() else find_files(config.path)[0]

    def results(self) -> Iterator[Result]:
        """Every pair with its place, or why there is none. Raises DataError for what makes all of a file unusable."""
        if self._config.aligned:
            yield from aligned_pairs(self.files[0], self.files[1], self.languages, self.name)
            return
        first, second = _number(self._config.columns.first), _number(self._config.columns.second)
        for file in self.files:
            if first and second and form_of(file) not in (".jsonl", ".json", ".csv", ".parquet"):
                yield from _numbered(file, (first, second), self.languages, self.name)
            else:
                yield from self._table(file)

    def _table(self, file: Path) -> Iterator[Result]:
        plan = None
        for row in read_rows(file):
            if isinstance(row, Fault):
                yield row
                continue
            values = flattened(row.values)
            if plan is None:
                plan = plan_columns("parallel", columns_for(self._config, self.languages, values), values, row.place)
            try:
                record = to_record(values, plan, self.name, self.language)
            except BadRecordError as bad:
                yield Fault(bad.reason, f"{row.place}: {bad.field}")
                continue
            assert isinstance(record, Parallel)
            yield record, row.place

    def part(self, part: Part) -> Iterator[Parallel]:
        """One pass over a part, in the files' order; what is left out is counted in a new `left_out`."""
        self.left_out = LeftOut()
        return (pair for pair, _, its in self.split(self.left_out) if its == part)

    def split(self, left_out: LeftOut) -> Iterator[tuple[Parallel, str, Part]]:
        """Every usable pair with its place and its part. Raises DataError where there is none."""
        return split_pairs(self.results(), left_out, self.name, *self._shares)

    def records(self, split: Split) -> Iterator[Record]:
        """The training part, or validation and test."""
        self.left_out = LeftOut()
        return (pair for pair, _, part in self.split(self.left_out) if (part == "train") == (split == "train"))

    def fingerprint(self) -> str:
        """Hash of the files' content and of the settings that decide how they are read."""
        config = self._config
        settings = [
            self.language,
            config.columns.first,
            config.columns.second,
            bool(config.aligned),
            list(self._shares),
        ]
        return sha256_json([settings, [[file.name, sha256_file(file)] for file in self.files]])


class ParallelApart(ApartSource):
    """The user's held-out pairs apart: they are the test, and validation comes out of the other place."""

    def part(self, part: Part) -> Iterator[Parallel]:
        """One pass over a part."""
        place = self.heldout if part == "test" else self.train
        assert isinstance(place, HasParts)
        records = place.part("train" if part == "test" else part)
        self.left_out = place.left_out
        return records

    def records(self, split: Split) -> Iterator[Record]:
        """The training part, or validation and test."""
        return self.part("train") if split == "train" else chain(self.part("validation"), self.part("test"))


def aligned_pairs(first: Path, second: Path, languages: tuple[str, str], source: str) -> Iterator[Result]:
    """Line n of one file with line n of the other. Raises DataError where one file has more lines."""
    for number, (one, other) in enumerate(zip_longest(read_lines(first), read_lines(second)), start=1):
        if one is None or other is None:
            short, long = (first, second) if one is None else (second, first)
            raise DataError(
                f"ends after {number - 1:,} lines, and {long.name} goes on",
                where=f"{short}:{number}",
                remedy="Aligned files have as many lines as each other: find where they part, or give a table",
            )
        texts = (one[1], other[1])
        place = f"{first}:{number}"
        if isinstance(texts[0], Fault) or isinstance(texts[1], Fault):
            yield next(text for text in texts if isinstance(text, Fault))
        elif not texts[0].strip() or not texts[1].strip():
            yield Fault("empty side", place if not texts[0].strip() else f"{second}:{number}")
        else:
            yield Parallel((_tidy(texts[0]), _tidy(texts[1])), languages, source), place


def _numbered(file: Path, columns: tuple[int, int], languages: tuple[str, str], source: str) -> Iterator[Result]:
    """Pairs out of a tab-separated file without a header; columns count from 1."""
    try:
        for number, line in read_lines(file):
            place = f"{file}:{number}"
            if isinstance(line, Fault):
                yield line
                continue
            if not line.strip():
                continue
            cells = line.split("\t")
            if len(cells) < max(columns):
                yield Fault(f"{len(cells)} columns where {max(columns)} are asked for", place)
                continue
            texts = (_tidy(cells[columns[0] - 1]), _tidy(cells[columns[1] - 1]))
            if all(texts):
                yield Parallel(texts, languages, source), place
            else:
                yield Fault("empty side", f"{place}: column {columns[0 if not texts[0] else 1]}")
    except OSError as error:
        raise DataError(f"cannot be read: {error}", where=str(file), remedy="Mend the file or leave it out") from error


def flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose languages stand inside one column (`translation: {fr: ..., en: ...}`, as the hub's sets do) as columns."""
    inside = values.get("translation")
    return {**values, **inside} if isinstance(inside, Mapping) else dict(values)


def columns_for(config: SourceConfig, languages: tuple[str, str], available: Mapping[str, Any]) -> ColumnsConfig:
    """The columns asked for; where none is, those with the languages' names."""
    found = {"first": config.columns.first, "second": config.columns.second}
    for part, language in zip(found, languages, strict=True):
        if not found[part] and language in available:
            found[part] = language
    return replace(config.columns, **found)


def _number(column: str) -> int:
    """A column's number from 1; 0 for a name."""
    return int(column) if column.isascii() and column.isdigit() else 0


def _existing(path: str) -> Path:
    found = Path(path).expanduser()
    if not found.is_file():
        raise DataError("no such file", where=path, remedy="Check the path")
    return found


def _tidy(text: str) -> str:
    return " ".join(text.split())

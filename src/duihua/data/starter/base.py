"""What all starter sources share: where the archive is, the split, the count of what is left out.

A source of its own gives `read`, which yields every usable record in archive order and counts the rest; the split is
decided record by record, so both splits are one pass over the archive with a filter, and nothing is stored twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

from duihua.data.archives import locked_archives, read_member, require_archive
from duihua.data.records import HELD_OUT_SHARE, Kind, LeftOut, Record, Split, is_held_out
from duihua.data.source import Terms
from duihua.files import sha256_json


class Counts(NamedTuple):
    """Records of each split."""

    train: int
    heldout: int


class StarterSource(ABC):
    """A source read from locked archives."""

    name: ClassVar[str]
    kind: ClassVar[Kind]
    language: ClassVar[str]
    terms: ClassVar[Terms]
    packages: ClassVar[tuple[str, ...]]
    """Archives that the source reads."""
    counts: ClassVar[Counts]
    """Records of each split, counted once from the locked archives; a test holds them."""
    in_starter: ClassVar[bool] = True
    """Whether `duihua data get starter` fetches it."""
    held_out_share: ClassVar[float] = HELD_OUT_SHARE
    reader_version: ClassVar[int] = 1
    """Raised when the same archive gives other records than before, so that stages built on it run again."""

    def __init__(self, data_directory: Path) -> None:
        """Raises DataError where an archive is missing."""
        self.data_directory = data_directory
        self.left_out = LeftOut()
        self.check_archives()

    def check_archives(self) -> None:
        """Raise DataError where an archive is missing."""
        for package in self.packages:
            require_archive(package, self.data_directory, "starter" if self.in_starter else self.name)

    @abstractmethod
    def read(self, left_out: LeftOut) -> Iterator[Record]:
        """Every usable record of both splits, in archive order; the others are counted in `left_out`."""

    def held_out(self, record: Record) -> bool:
        """Whether a record belongs to the held-out split."""
        return is_held_out(record, self.held_out_share)

    def records(self, split: Split) -> Iterator[Record]:
        """One pass over the records of a split, in archive order."""
        self.left_out = LeftOut()
        wanted = split == "heldout"
        return (record for record in self.read(self.left_out) if self.held_out(record) == wanted)

    def fingerprint(self) -> str:
        """Hash of name, reader and the archives' locked SHA-256."""
        locked = locked_archives()
        return sha256_json([self.name, self.reader_version, [locked[package].sha256 for package in self.packages]])

    def member(self, package: str, ending: str) -> bytes:
        """Bytes of one member of one archive."""
        return read_member(require_archive(package, self.data_directory), ending)

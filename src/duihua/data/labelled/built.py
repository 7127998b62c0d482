"""Sources that cost seconds to make: made once, kept as two files of JSON lines below the data directory, then read.

Why kept: looking for near duplicates among tens of thousands of records, or unpacking hundreds of megabytes to keep four of
them, is worth doing once and not in each of twenty training runs. The folder's name is the fingerprint of what it was made
from, so another reader or another archive makes another folder, and it is renamed into place when whole.
"""

from __future__ import annotations

import json
import os
import shutil
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from duihua import console
from duihua.data.records import Choice, Document, Labelled, LeftOut, Record, Split
from duihua.data.starter.base import StarterSource
from duihua.errors import DataError
from duihua.files import read_json, sync_directory, write_json


class BuiltSource(StarterSource):
    """A source whose two splits are kept as files."""

    @abstractmethod
    def made(self, left_out: LeftOut) -> Iterator[tuple[Record, Split]]:
        """Every usable record with its split; the others are counted in `left_out`."""

    @property
    def folder(self) -> Path:
        """Where the files are kept."""
        return self.data_directory / "built" / f"{self.name}-{self.fingerprint()[:16]}"

    def check_archives(self) -> None:
        """Built files are enough; without them the archives must be there."""
        if not (self.folder / "left_out.json").is_file():
            super().check_archives()

    def read(self, left_out: LeftOut) -> Iterator[Record]:
        return (record for record, _ in self.made(left_out))

    def records(self, split: Split) -> Iterator[Record]:
        """One pass over a split's file, which is made first where it is missing. `left_out` counts both splits."""
        if not (self.folder / "left_out.json").is_file():
            self.build()
        self.left_out = LeftOut()
        for reason, entry in read_json(self.folder / "left_out.json")["reasons"].items():
            self.left_out.add(reason, entry["first"], entry["count"])
        return self._lines(split)

    def _lines(self, split: Split) -> Iterator[Record]:
        with open(self.folder / f"{split}.jsonl", encoding="utf-8", newline="\n") as file:
            for line in file:
                yield self._record(json.loads(line))

    def _record(self, row: dict[str, Any]) -> Record:
        if self.kind == "labelled":
            return Labelled(tuple(row["texts"]), row["label"], row["source"], row["language"])
        if self.kind == "choices":
            return Choice(row["context"], tuple(row["options"]), row["answer"], row["source"], row["language"])
        return Document(row["text"], row["source"], row["language"])

    def build(self) -> None:
        """Make the files and bring them in by a rename. Raises DataError for a missing archive or an unwritable folder."""
        super().check_archives()
        left_out = LeftOut()
        aside = self.folder.with_name(f".{self.folder.name}.{os.getpid()}.part")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            aside.mkdir(parents=True)
            with (
                open(aside / "train.jsonl", "w", encoding="utf-8", newline="\n") as train,
                open(aside / "heldout.jsonl", "w", encoding="utf-8", newline="\n") as heldout,
                console.progress(None, "records", f"{self.name}, made once") as bar,
            ):
                for record, split in self.made(left_out):
                    file = train if split == "train" else heldout
                    file.write(json.dumps(asdict(record), ensure_ascii=False) + "\n")
                    bar.advance(1)
            write_json(aside / "left_out.json", left_out.to_mapping())
            if not (self.folder / "left_out.json").is_file():  # another process may have been faster
                shutil.rmtree(self.folder, ignore_errors=True)
                os.rename(aside, self.folder)
                sync_directory(self.folder.parent)
        except OSError as error:
            raise DataError(
                f"cannot write: {error.strerror or error}",
                where=str(self.folder),
                remedy="Free some space or use --data DIR",
            ) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)

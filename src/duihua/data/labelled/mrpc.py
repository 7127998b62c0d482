"""The Microsoft Research Paraphrase Corpus: pairs of news sentences, judged by people as saying the same or not.

From: W. B. Dolan, C. Brockett, "Automatically Constructing a Corpus of Sentential Paraphrases", IWP 2005. Two thirds of the
pairs are paraphrases, so always saying "equivalent" is right in 66.5 % of the test: any result stands beside that.

No package registry carries the files, so they are read where the user put them: the two original text files (packed with
gzip or not), in the folder `mrpc` of the data directory or of the folder that $DUIHUA_DATA names. The form is the original
one: tab-separated with a byte order mark, and quoting off, because quotation marks in the sentences are not closed (a
reader with quoting on merges lines and loses pairs without a word).
"""

from __future__ import annotations

import gzip
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

from duihua.data.records import Labelled, LeftOut, Record, Split
from duihua.data.source import Terms
from duihua.data.starter.base import Counts, StarterSource
from duihua.errors import DataError
from duihua.files import sha256_file, sha256_json

HEADER = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
CLASSES = {"1": "equivalent", "0": "not_equivalent"}
FILES: dict[Split, str] = {"train": "msr_paraphrase_train.txt", "heldout": "msr_paraphrase_test.txt"}
ENVIRONMENT = "DUIHUA_DATA"


def holds_mrpc(folder: Path) -> bool:
    """Whether both files lie in `folder`."""
    return all(_file(folder, split) is not None for split in FILES)


def _file(folder: Path, split: Split) -> Path | None:
    candidates = (folder / f"{FILES[split]}{packed}" for packed in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


class Mrpc(StarterSource):
    """Sentence pairs, equivalent or not_equivalent, with the original test part held out."""

    name, kind, language = "mrpc", "labelled", "en"
    terms = Terms(
        "Microsoft Research licence (for research; see the data's own page)",
        "https://www.microsoft.com/en-us/download/details.aspx?id=52398",
        "Microsoft Research Paraphrase Corpus, by W. B. Dolan and C. Brockett, 2005",
        "Read from files that the user has: it may not be passed on.",
    )
    packages = ()
    in_starter = False
    counts = Counts(4_076, 1_725)

    def __init__(self, data_directory: Path, folder: Path | None = None) -> None:
        """folder: where the files lie, where it is not one of the usual places. Raises DataError where they are missing."""
        self.folder = folder or self._find(data_directory)
        super().__init__(data_directory)

    @staticmethod
    def _find(data_directory: Path) -> Path:
        places = [data_directory / "mrpc"]
        if os.environ.get(ENVIRONMENT):
            places.append(Path(os.environ[ENVIRONMENT]).expanduser() / "mrpc")
        found = next((place for place in places if holds_mrpc(place)), None)
        if found is None:
            raise DataError(
                f"the files of MRPC are not there: {FILES['train']} and {FILES['heldout']} (also as .gz)",
                where=" or ".join(map(str, places)),
                remedy="Put both there, or run `duihua data get mrpc --from DIR` with the folder that has them",
            )
        return found

    @classmethod
    def take(cls, from_directory: Path, data_directory: Path) -> None:
        """Copy the files from a folder of the user's into the data directory. Raises DataError where they are not in it."""
        if not holds_mrpc(from_directory):
            raise DataError(
                f"needs {FILES['train']} and {FILES['heldout']} (also as .gz)",
                where=str(from_directory),
                remedy="Name the folder that has both",
            )
        target = data_directory / "mrpc"
        target.mkdir(parents=True, exist_ok=True)
        for split in FILES:
            path = _file(from_directory, split)
            assert path is not None, "both files were seen above"
            aside = target / f".{path.name}.{os.getpid()}.part"
            shutil.copyfile(path, aside)
            os.replace(aside, target / path.name)

    def file(self, split: Split) -> Path:
        """Where a split's file lies. Raises DataError where it went away."""
        path = _file(self.folder, split)
        if path is None:
            raise DataError("the file is gone", where=str(self.folder / FILES[split]), remedy="Put it back")
        return path

    def read(self, left_out: LeftOut) -> Iterator[Record]:
        for split in FILES:
            yield from self._pairs(split, left_out)

    def records(self, split: Split) -> Iterator[Record]:
        """One pass over a split's file, in its order."""
        self.left_out = LeftOut()
        return self._pairs(split, self.left_out)

    def _pairs(self, split: Split, left_out: LeftOut) -> Iterator[Record]:
        path = self.file(split)
        try:
            raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            lines = raw.decode("utf-8-sig").split("\n")
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise DataError(f"cannot be read: {error}", where=str(path), remedy="Fetch the file again") from error
        if tuple(lines[0].rstrip("\r").split("\t")) != HEADER:
            raise DataError(
                f"the first line is not that of MRPC ({', '.join(HEADER)})",
                where=f"{path}:1",
                remedy="Give the original file, tab-separated",
            )
        for number, line in enumerate(lines[1:], start=2):
            cells = line.rstrip("\r").split("\t")
            place = f"{path}:{number}"
            if cells == [""]:
                continue
            if len(cells) != len(HEADER):
                left_out.add(f"{len(cells)} cells where the header has {len(HEADER)}", place)
            elif cells[0] not in CLASSES:
                left_out.add("the judgement is neither 0 nor 1", place)
            elif not cells[3].strip() or not cells[4].strip():
                left_out.add("empty text", place)
            else:
                yield Labelled((cells[3].strip(), cells[4].strip()), CLASSES[cells[0]], self.name, self.language)

    def fingerprint(self) -> str:
        """Hash of name, reader and both files."""
        return sha256_json([self.name, self.reader_version, [sha256_file(self.file(split)) for split in FILES]])

"""Tatoeba's Chinese-English pairs: short everyday sentences, translated by volunteers.

From: tatoeba.org, in the form that manythings.org/anki gives out: English TAB Chinese TAB attribution, one pair a line,
UTF-8 with a byte order mark. The file changes as the project grows, so no hash of it is fixed here: it is read where the
user put it (`cmn-eng.txt.gz`, `cmn-eng.txt`, or the `cmn.txt` out of cmn-eng.zip), in the folder `tatoeba` of the data
directory or of the folder that $DUIHUA_DATA names.

Two things about it bite. Many sentences occur in several pairs, so the parts are made by groups (`groups.py`): a pair-by-pair
split would ask in the test what it taught. And simplified and traditional characters are mixed; they are left as they are in
`tatoeba-zh-en`, and written in simplified ones in `tatoeba-zh-en-simplified`, which needs the package opencc.
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from duihua.data.parallel.base import ParallelSource, Part
from duihua.data.parallel.groups import parts_by_group, side_keys
from duihua.data.records import LeftOut, Parallel
from duihua.data.source import Terms
from duihua.data.starter.base import Counts
from duihua.errors import DataError
from duihua.files import sha256_file, sha256_json, write_atomic

ENVIRONMENT, FOLDER = "DUIHUA_DATA", "tatoeba"
FILES = ("cmn-eng.txt.gz", "cmn-eng.txt", "cmn.txt")
COLUMNS = 3


def find_file(folder: Path) -> Path | None:
    """The pairs' file in a folder, None where there is none."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


class Tatoeba(ParallelSource):
    """Chinese and English as they stand in the file; a pair that says the same as one before is left out."""

    name, language = "tatoeba-zh-en", "zh-en"
    terms = Terms(
        "CC BY 2.0 FR",
        "https://tatoeba.org",
        "Sentences by the contributors of tatoeba.org; every pair names its own two sentences and their authors",
        "`duihua data show tatoeba-zh-en --json` gives each record with its attribution. Simplified and traditional mixed.",
    )
    packages = ()
    counts = Counts(26_854, 2_144)
    script = "as it is"

    def __init__(self, data_directory: Path, path: Path | None = None) -> None:
        """path: the file, where it is not in one of the usual places. Raises DataError where there is none."""
        self.path = path or self._find(data_directory)
        super().__init__(data_directory)

    @classmethod
    def _find(cls, data_directory: Path) -> Path:
        places = [data_directory / FOLDER]
        if os.environ.get(ENVIRONMENT):
            places.append(Path(os.environ[ENVIRONMENT]).expanduser() / FOLDER)
        found = next((path for place in places if (path := find_file(place)) is not None), None)
        if found is None:
            raise DataError(
                f"the Chinese-English pairs of Tatoeba are not there ({', '.join(FILES)})",
                where=" or ".join(map(str, places)),
                remedy=f"Fetch cmn-eng.zip from manythings.org/anki, unpack it, then `duihua data get {cls.name} --from DIR`",
            )
        return found

    @classmethod
    def take(cls, from_directory: Path, data_directory: Path) -> None:
        """Copy the file from a folder of the user's. Raises DataError where it is not there."""
        path = find_file(from_directory)
        if path is None:
            raise DataError(
                f"needs one of {', '.join(FILES)}", where=str(from_directory), remedy="Check what follows --from"
            )
        write_atomic(data_directory / FOLDER / path.name, path.read_bytes())

    def read_parts(self, parts: Sequence[Part], left_out: LeftOut) -> Iterator[Parallel]:
        """The parts, each in the file's order. A line's part is known when all lines are read, so `left_out` counts the whole
        file, whichever parts are asked for."""
        pairs = list(self.pairs(left_out))
        found = parts_by_group(side_keys(pair.texts) for pair in pairs)
        return (pair for part in parts for pair, its in zip(pairs, found, strict=True) if its == part)

    def pairs(self, left_out: LeftOut) -> Iterator[Parallel]:
        """Every usable pair of the file, in its order; the others are counted in `left_out`."""
        try:
            raw = gzip.decompress(self.path.read_bytes()) if self.path.suffix == ".gz" else self.path.read_bytes()
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"cannot be read: {error}", where=str(self.path), remedy="Fetch the file again") from error
        rewrite = self.rewriter()
        seen: set[tuple[bytes, bytes]] = set()
        for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
            place = f"{self.path}:{number}"
            if not line.strip():
                continue
            try:
                cells = line.decode("utf-8").rstrip("\r").split("\t")
            except UnicodeDecodeError:
                left_out.add("bytes that are not UTF-8", place)
                continue
            if len(cells) != COLUMNS:
                left_out.add(f"{len(cells)} columns, and the file has {COLUMNS}", place)
                continue
            english, chinese, attribution = (cell.strip() for cell in cells)
            if not english or not chinese:
                left_out.add("empty side", place)
                continue
            texts = (rewrite(chinese), english)
            keys = side_keys(texts)
            if keys in seen:
                left_out.add("says the same as a pair before it", place)
                continue
            seen.add(keys)
            yield Parallel(texts, ("zh", "en"), self.name, attribution)

    def rewriter(self) -> Callable[[str], str]:
        """What is done to the Chinese text."""
        return str

    def fingerprint(self) -> str:
        """Hash of name, reader, script and the file."""
        return sha256_json([self.name, self.reader_version, self.script, sha256_file(self.path)])


class TatoebaSimplified(Tatoeba):
    """The same, all Chinese in simplified characters (OpenCC's t2s)."""

    name = "tatoeba-zh-en-simplified"
    terms = Terms(
        "CC BY 2.0 FR",
        "https://tatoeba.org",
        "Sentences by the contributors of tatoeba.org; every pair names its own two sentences and their authors",
        "Changed: traditional characters were written as simplified ones by OpenCC.",
    )
    counts = Counts(26_854, 2_144)
    script = "OpenCC t2s"

    def __init__(self, data_directory: Path, path: Path | None = None) -> None:
        """Raises DataError without opencc."""
        if importlib.util.find_spec("opencc") is None:
            raise DataError(
                "writing traditional characters as simplified ones needs the package opencc",
                where=self.name,
                remedy="Run `pip install opencc`, or use tatoeba-zh-en, which mixes both",
            )
        super().__init__(data_directory, path)

    def rewriter(self) -> Callable[[str], str]:
        """OpenCC's converter."""
        import opencc  # type: ignore[import-not-found, unused-ignore]

        converter = opencc.OpenCC("t2s")

        def simplified(text: str) -> str:
            return str(converter.convert(text))

        return simplified

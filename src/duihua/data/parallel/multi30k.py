"""Multi30k: descriptions of 31,014 pictures in English, with their translations into French and German.

From: D. Elliott, S. Frank, K. Sima'an, L. Specia, "Multi30K: Multilingual English-German Image Descriptions", 2016
(arXiv:1605.00459); French: D. Elliott et al., "Findings of the Second Shared Task on Multimodal Machine Translation", WMT
2017. Task 1, raw texts: train 29,000, val 1,014, test_2016_flickr 1,000, one sentence a line. The usual small measure of a
translator: an hour of training on a laptop tells good from bad.

The files come from the data set's own repository at one commit, each with its SHA-256, or from a folder that has them:
`multi30k` in the data directory or in the folder that $DUIHUA_DATA names. No package registry carries them.
"""

from __future__ import annotations

import gzip
import os
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import ClassVar

from duihua import console
from duihua.data.parallel.base import PARTS, ParallelSource, Part
from duihua.data.records import LeftOut, Parallel
from duihua.data.source import Terms
from duihua.data.starter.base import Counts
from duihua.errors import DataError
from duihua.files import sha256_file, sha256_json, write_atomic

ENVIRONMENT = "DUIHUA_DATA"
COMMIT = "a3d2e0d26b56f3846f66a952536ffed4e401d05a"
HOME = f"https://raw.githubusercontent.com/multi30k/dataset/{COMMIT}/data/task1/raw/"
STEMS: dict[Part, str] = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
SHA256 = {
    "train.de.gz": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
    "train.en.gz": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
    "train.fr.gz": "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c",
    "val.de.gz": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
    "val.en.gz": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
    "val.fr.gz": "ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9",
    "test_2016_flickr.de.gz": "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
    "test_2016_flickr.en.gz": "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
    "test_2016_flickr.fr.gz": "6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90",
}
SECONDS_TO_WAIT = 60.0


class Multi30k(ParallelSource):
    """One of its pairs of languages. The files are read as they were made: `left_out` counts lines without text."""

    language = "fr-en"
    family: ClassVar[str] = "multi30k"
    """What `duihua data get` may call all sources that read these files."""
    languages: ClassVar[tuple[str, str]]
    terms = Terms(
        "research data, from the Multi30k repository; the pictures are Flickr30k's",
        "https://github.com/multi30k/dataset",
        "Multi30k, by D. Elliott, S. Frank, K. Sima'an, L. Specia and others, 2016-2018",
        "Not passed on with Duihua: fetched from its own repository.",
    )
    packages = ()
    counts = Counts(29_000, 2_014)

    def __init__(self, data_directory: Path, folder: Path | None = None) -> None:
        """folder: where the files lie, where it is not one of the usual places. Raises DataError where one is missing."""
        self.folder = folder or self._find(data_directory)
        super().__init__(data_directory)

    @classmethod
    def files(cls) -> list[str]:
        """Names of the files that this pair of languages needs."""
        return [f"{STEMS[part]}.{language}.gz" for part in PARTS for language in cls.languages]

    @classmethod
    def _find(cls, data_directory: Path) -> Path:
        places = [data_directory / cls.family]
        if os.environ.get(ENVIRONMENT):
            places.append(Path(os.environ[ENVIRONMENT]).expanduser() / cls.family)
        found = next((place for place in places if all((place / name).is_file() for name in cls.files())), None)
        if found is None:
            raise DataError(
                f"the files of {cls.family} are not there: {', '.join(cls.files())}",
                where=" or ".join(map(str, places)),
                remedy=f"Run `duihua data get {cls.name}` (with --from DIR where there is no network)",
            )
        return found

    @classmethod
    def take(cls, from_directory: Path, data_directory: Path) -> None:
        """Copy the files from a folder of the user's, checked. Raises DataError where one is missing or another file."""
        for name in cls.files():
            path = from_directory / name
            if not path.is_file():
                raise DataError("no such file", where=str(path), remedy=f"It is at {HOME}{name}")
            _keep(name, path.read_bytes(), data_directory / cls.family, str(path))

    @classmethod
    def download(cls, data_directory: Path) -> None:
        """Fetch what is missing from the data set's own repository. Raises DataError without network or for other bytes."""
        folder = data_directory / cls.family
        missing = [
            name for name in cls.files() if not (folder / name).is_file() or sha256_file(folder / name) != SHA256[name]
        ]
        if not missing:
            return
        with console.progress(len(missing), "file", cls.name) as bar:
            for name in missing:
                try:
                    with urllib.request.urlopen(HOME + name, timeout=SECONDS_TO_WAIT) as answer:
                        content: bytes = answer.read()
                except (urllib.error.URLError, OSError) as error:
                    raise DataError(
                        f"cannot be fetched: {getattr(error, 'reason', error)}",
                        where=HOME + name,
                        remedy="Check the network and run it again, or fetch the files elsewhere and add --from DIR",
                    ) from error
                _keep(name, content, folder, HOME + name)
                bar.advance(1)

    def read_parts(self, parts: Sequence[Part], left_out: LeftOut) -> Iterator[Parallel]:
        """One pass over the parts, each in the order of its files."""
        return chain.from_iterable(self._pairs(part, left_out) for part in parts)

    def _pairs(self, part: Part, left_out: LeftOut) -> Iterator[Parallel]:
        paths = [self.folder / f"{STEMS[part]}.{language}.gz" for language in self.languages]
        first, second = (_lines(path) for path in paths)
        if len(first) != len(second):
            raise DataError(
                f"{len(first):,} lines beside {len(second):,} in {paths[1].name}",
                where=str(paths[0]),
                remedy="Fetch both files again",
            )
        for number, texts in enumerate(zip(first, second, strict=True), start=1):
            if all(texts):
                yield Parallel(texts, self.languages, self.name)
            else:
                left_out.add("empty side", f"{paths[0 if not texts[0] else 1]}:{number}")

    def fingerprint(self) -> str:
        """Hash of name, reader and the files."""
        return sha256_json([self.name, self.reader_version, [sha256_file(self.folder / name) for name in self.files()]])


class Multi30kFrench(Multi30k):
    """French and English."""

    name, language = "multi30k-fr-en", "fr-en"
    languages = ("fr", "en")


class Multi30kGerman(Multi30k):
    """German and English."""

    name, language = "multi30k-de-en", "de-en"
    languages = ("de", "en")


def _keep(name: str, content: bytes, folder: Path, where: str) -> None:
    import hashlib

    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[name]:
        raise DataError(
            f"SHA-256 is {digest}, should be {SHA256[name]}",
            where=where,
            remedy="Fetch the file from its own repository",
        )
    write_atomic(folder / name, content)


def _lines(path: Path) -> list[str]:
    """The lines of a packed file, white space around them removed."""
    try:
        return [line.strip() for line in gzip.decompress(path.read_bytes()).decode("utf-8").rstrip("\n").split("\n")]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path), remedy="Fetch the file again") from error

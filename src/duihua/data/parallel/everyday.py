"""Everyday sentences in French and English, and in Chinese and English: greetings, who one is, what one likes, where things
are.

Why: Multi30k describes pictures, so that a model of it has never seen "je" or a question; and Tatoeba's file lacks some of
the first sentences that anybody tries. A few hundred pairs, repeated by their weight, teach both. They were written for this
project (no package carries such a collection with clear terms), come with it, and are all trained on: lists so regular
measure nothing, so validation and test are empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from duihua.data.parallel.base import ParallelSource, Part
from duihua.data.records import LeftOut, Parallel
from duihua.data.source import Terms
from duihua.data.starter.base import Counts
from duihua.files import sha256_file, sha256_json


class Everyday(ParallelSource):
    """One list, all of it for training."""

    terms = Terms("CC0-1.0", "", "The authors of Duihua", "Written by hand and from templates for this project.")
    packages = ()
    languages: ClassVar[tuple[str, str]]

    @property
    def path(self) -> Path:
        """The list: a pair a line, a tab between."""
        return Path(__file__).parent / f"{self.name}.tsv"

    def read_parts(self, parts: Sequence[Part], left_out: LeftOut) -> Iterator[Parallel]:
        """All pairs for training, none for the other parts."""
        if "train" in parts:
            for line in self.path.read_text(encoding="utf-8").splitlines():
                first, _, second = line.partition("\t")
                yield Parallel((first, second), self.languages, self.name)

    def fingerprint(self) -> str:
        """Hash of name, reader and the file's bytes."""
        return sha256_json([self.name, self.reader_version, sha256_file(self.path)])


class EverydayFrench(Everyday):
    """French and English."""

    name, language, languages = "everyday-fr-en", "fr-en", ("fr", "en")
    counts = Counts(452, 0)


class EverydayChinese(Everyday):
    """Chinese and English."""

    name, language, languages = "everyday-zh-en", "zh-en", ("zh", "en")
    counts = Counts(253, 0)

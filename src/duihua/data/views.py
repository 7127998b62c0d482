"""Sources made of other sources: two places as one, the texts of a labelled source, the first records of any.

Why views and no settings of each reader: how many records are taken and which part is held out means the same for files,
archives and streams, so it is written once and every reader yields all it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import nsmallest
from itertools import islice

from duihua.data.parallel.base import Part, part_of
from duihua.data.records import (
    Document,
    Kind,
    Labelled,
    LeftOut,
    Parallel,
    Record,
    Split,
    hash_order,
    is_held_out_as_text,
)
from duihua.data.source import Source


class ApartSource:
    """Two places of one kind, all of the first to train on and all of the second held out."""

    def __init__(self, train: Source, heldout: Source) -> None:
        """train, heldout: sources whose records are all in their train split."""
        self.train, self.heldout = train, heldout
        self.name, self.kind, self.language, self.terms = train.name, train.kind, train.language, train.terms
        self.left_out = train.left_out

    def records(self, split: Split) -> Iterator[Record]:
        """One pass over one of the two places; `left_out` counts that place's."""
        place = self.train if split == "train" else self.heldout
        records = place.records("train")
        self.left_out = place.left_out
        return records

    def fingerprint(self) -> str:
        return f"{self.train.fingerprint()}-heldout-{self.heldout.fingerprint()}"


class TextsOnly:
    """The texts of a labelled source's training part as documents: what may be pre-trained on.

    Its held-out documents come out of the training part too. The texts that the classifier is tested on are in neither.
    """

    kind: Kind = "text"

    def __init__(self, source: Source) -> None:
        self._source = source
        self.name, self.language, self.terms = source.name, source.language, source.terms

    @property
    def left_out(self) -> LeftOut:
        return self._source.left_out

    def records(self, split: Split) -> Iterator[Record]:
        for record in self._source.records("train"):
            assert isinstance(record, Labelled)
            for text in record.texts:
                document = Document(text, record.source, record.language)
                if is_held_out_as_text(document) == (split == "heldout"):
                    yield document

    def fingerprint(self) -> str:
        return f"{self._source.fingerprint()}-texts"


class Limited:
    """The first `limit` records of each split of another source; of one for classifiers or translators a sample of the
    train split.

    A sample and not the first ones, because labelled files are often sorted by class and parallel ones by length; and the
    held-out part whole, because a test on fewer examples says less.
    """

    def __init__(self, source: Source, limit: int) -> None:
        self._source, self._limit = source, limit
        self.name, self.kind, self.language = source.name, source.kind, source.language
        self.terms = source.terms

    @property
    def left_out(self) -> LeftOut:
        return self._source.left_out

    def records(self, split: Split) -> Iterator[Record]:
        records = self._source.records(split)
        if self.kind not in ("labelled", "choices", "parallel"):
            return islice(records, self._limit)
        return iter(nsmallest(self._limit, records, key=hash_order)) if split == "train" else records

    def part(self, part: Part) -> Iterator[Parallel]:
        """A part of parallel texts, as `records` limits it."""
        records = part_of(self._source, part)
        return iter(nsmallest(self._limit, records, key=hash_order)) if part == "train" else records

    def fingerprint(self) -> str:
        return f"{self._source.fingerprint()}-first-{self._limit}"

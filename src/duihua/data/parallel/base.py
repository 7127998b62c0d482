"""What all sources of parallel texts share: three parts instead of two, and a direction that is chosen later.

Why a third part: a translator is trained on one part, watched on a second (when to stop, which weights to keep) and scored once
on a third. Choosing weights on the part that is reported would flatter the report. `records("train")` is what is trained on,
`records("heldout")` both others, so that no other stage that reads a source ever meets them; `part` gives one of the three.

Why a record has no direction: the pair of a French and an English sentence teaches both ways. Whoever trains says which
language is read and which is written (`facing`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol, runtime_checkable

from duihua.data.records import LeftOut, Parallel, Record, Split
from duihua.data.source import Source
from duihua.data.starter.base import StarterSource
from duihua.errors import ConfigError, DataError

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
TEST_SHARE, VALIDATION_SHARE = 0.05, 0.025
"""Shares of a source that has no parts of its own."""


@runtime_checkable
class HasParts(Protocol):
    """A source that knows its three parts."""

    def part(self, part: Part) -> Iterator[Parallel]:
        """One pass over a part, always in the same order."""
        ...


class ParallelSource(StarterSource):
    """A known source of parallel texts. A subclass gives `read_parts`."""

    kind = "parallel"
    in_starter = False

    @abstractmethod
    def read_parts(self, parts: Sequence[Part], left_out: LeftOut) -> Iterator[Parallel]:
        """One pass over some parts, one after the other; what is left out of them is added to `left_out`, a line once."""

    def part(self, part: Part) -> Iterator[Parallel]:
        """One pass over a part; what is left out is counted in a new `left_out`."""
        self.left_out = LeftOut()
        return self.read_parts((part,), self.left_out)

    def read(self, left_out: LeftOut) -> Iterator[Record]:
        return self.read_parts(PARTS, left_out)

    def records(self, split: Split) -> Iterator[Record]:
        """The training part, or validation and test one after the other."""
        self.left_out = LeftOut()
        return self.read_parts(("train",) if split == "train" else ("validation", "test"), self.left_out)


def part_of(source: Source, part: Part) -> Iterator[Parallel]:
    """A part of a source of parallel texts. Raises ConfigError where the source holds something else."""
    if source.kind != "parallel":
        raise ConfigError(
            f"a translator learns from parallel texts, and the source holds {source.kind}",
            where=f"translate.sources, {source.name}",
            remedy="Take a source of kind parallel from `duihua data list`, or set kind: parallel for your own files",
        )
    assert isinstance(source, HasParts), "each kind of source that may hold parallel texts knows its parts"
    return source.part(part)


def parse_languages(text: str, where: str = "languages") -> tuple[str, str]:
    """("fr", "en") out of "fr-en". Raises ConfigError for anything else, or for one language twice."""
    first, dash, second = text.strip().lower().partition("-")
    right = bool(dash) and first.isalpha() and second.isalpha() and first.isascii() and second.isascii()
    if not right or first == second:
        raise ConfigError(
            f"{text!r} does not name two languages", where=where, remedy="Write them as fr-en: first language, second"
        )
    return first, second


def facing(record: Parallel, from_language: str, to_language: str) -> tuple[str, str]:
    """(text that is read, text that is written). Raises DataError where the record is of other languages."""
    if record.languages == (from_language, to_language):
        return record.texts
    if record.languages == (to_language, from_language):
        return record.texts[1], record.texts[0]
    raise DataError(
        f"the texts are {record.language}, and {from_language}-{to_language} is asked for",
        where=record.source,
        remedy=f"Set from_language and to_language to {record.languages[0]} and {record.languages[1]}, either way round",
    )


def with_references(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Each text that is read once, with all its translations: what a test asks. In the order of first sight.

    Why: where one Chinese sentence has three English translations, three questions would count three times, and each would call
    the other two answers wrong.
    """
    found: dict[str, list[str]] = {}
    for source, target in pairs:
        references = found.setdefault(source, [])
        if target not in references:
            references.append(target)
    return list(found.items())

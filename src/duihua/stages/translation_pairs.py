"""The pairs that a translator learns from and is tested on, out of the sources that a stage names.

No text of the test may stand in training, on either side. A source keeps its own parts apart (data/parallel/groups.py, or as
they were published); what this module looks after is the overlap between sources: a training pair of one that shares a text
with the test of another is left out, and a validation pair that shares one with training is. Both are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from duihua.data.parallel.base import Part, facing, part_of, with_references
from duihua.data.parallel.batches import EncodedPair
from duihua.data.parallel.groups import side_keys
from duihua.data.records import LeftOut, Parallel
from duihua.data.source import Source
from duihua.errors import DataError
from duihua.text.tokenizer import Tokenizer
from duihua.text.translation_inputs import TranslationInputs

Direction = tuple[str, str]


@dataclass
class Pairs:
    """Records of each part, training ones apart for each source. overlap: pairs of a published training part that share a
    text with the test of the same source; they stay, as published, and are told."""

    train: list[list[Parallel]]
    validation: list[Parallel]
    test: list[Parallel]
    left_out: LeftOut = field(default_factory=LeftOut)
    overlap: int = 0

    def counts(self) -> dict[str, int]:
        """Pairs in each part."""
        return {
            "train": sum(map(len, self.train)),
            "validation": len(self.validation),
            "test": len(self.test),
            "train_sharing_a_text_with_test": self.overlap,
        }


def read_pairs(sources: Sequence[Source], direction: Direction) -> Pairs:
    """All parts of all sources. Raises DataError for pairs of other languages, and for no pair to learn from."""
    parts: dict[Part, list[list[Parallel]]] = {"train": [], "validation": [], "test": []}
    left_out = LeftOut()
    for source in sources:
        told: set[tuple[str, str]] = set()  # parts out of one file count the same lines each time
        for part, lists in parts.items():
            records = list(part_of(source, part))
            for record in records[:1]:
                facing(record, *direction)
            lists.append(records)
            for reason, count in source.left_out.counts.items():
                place = source.left_out.first_place[reason]
                if (reason, place) not in told:
                    told.add((reason, place))
                    left_out.add(reason, place, count)
    tests = [{key for pair in its for key in _keys(pair)} for its in parts["test"]]
    train: list[list[Parallel]] = []
    overlap = 0
    for number, pairs in enumerate(parts["train"]):
        others = set().union(*(keys for place, keys in enumerate(tests) if place != number))
        kept = []
        for pair in pairs:
            keys = _keys(pair)
            if not others.isdisjoint(keys):
                left_out.add("training pair shares a text with the test of another source", pair.source)
                continue
            overlap += not tests[number].isdisjoint(keys)
            kept.append(pair)
        train.append(kept)
    if not any(train):
        raise DataError(
            "there is no pair to learn from", where="translate.sources", remedy="Look with `duihua data show`"
        )
    validation = []
    for number, pairs in enumerate(parts["validation"]):
        others = {key for place, its in enumerate(train) if place != number for pair in its for key in _keys(pair)}
        for pair in pairs:
            if others.isdisjoint(_keys(pair)):
                validation.append(pair)
            else:
                left_out.add("validation pair shares a text with the training of another source", pair.source)
    return Pairs(train, validation, [pair for its in parts["test"] for pair in its], left_out, overlap)


def texts_of(pairs: Sequence[Sequence[Parallel]]) -> list[str]:
    """Every text of both languages, each once, in order: what the joint vocabulary is learnt from."""
    return list(dict.fromkeys(text for group in pairs for pair in group for text in pair.texts))


def encode_pairs(
    pairs: Sequence[Parallel],
    directions: Sequence[Direction],
    inputs: TranslationInputs,
    longest: int,
    left_out: LeftOut,
    of: str,
) -> list[EncodedPair]:
    """Each pair once a direction; those with more than `longest` tokens on a side are left out and counted under `of`."""
    encoded: list[EncodedPair] = []
    for direction in directions:
        texts = [facing(pair, *direction) for pair in pairs]
        sources = inputs.sources([source for source, _ in texts], direction[1])
        targets = inputs.targets([target for _, target in texts])
        for source, target, pair in zip(sources, targets, pairs, strict=True):
            if max(len(source), len(target)) > longest:
                left_out.add(f"{of}: more than {longest} tokens", pair.source)
            else:
                encoded.append(EncodedPair(source, target))
    return encoded


def questions(pairs: Sequence[Parallel], direction: Direction, limit: int = 0) -> tuple[list[str], list[list[str]]]:
    """(texts that are read, all known translations of each), the first `limit` of them (0: all)."""
    asked = with_references(facing(pair, *direction) for pair in pairs)
    asked = asked[:limit] if limit else asked
    return [source for source, _ in asked], [references for _, references in asked]


def learn_vocabulary(pairs: Pairs, size: int) -> Tokenizer:
    """A joint byte-level BPE of both languages, from the training pairs alone."""
    return Tokenizer.train(texts_of(pairs.train), size)


def _keys(pair: Parallel) -> tuple[bytes, bytes]:
    """As `side_keys`, with the languages in a fixed order, so that sources that write them differently can be compared."""
    first, second = sorted(zip(pair.languages, pair.texts, strict=True))
    return side_keys((first[1], second[1]))

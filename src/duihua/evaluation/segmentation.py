"""How well a text is cut into words: precision, recall and F1 of words against a text that people have cut.

A word counts as found when both its ends are right: its span in the text equals one of the gold's (Sproat and Emerson, "The
First International Chinese Word Segmentation Bakeoff", 2003). Cutting into single characters finds every word of one
character, so it is not worth nothing; it is the floor that a segmenter must be seen against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from duihua.evaluation.intervals import Interval, bootstrap_ratio


@dataclass(frozen=True)
class SegmentationScore:
    """f1: with its interval over sentences. gold, found, right: numbers of words."""

    precision: float
    recall: float
    f1: Interval
    gold: int
    found: int
    right: int

    def to_dict(self) -> dict[str, Any]:
        """As it stands in JSON."""
        return {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1.to_dict(),
            "gold_words": self.gold,
            "found_words": self.found,
            "right_words": self.right,
        }


def word_spans(words: Sequence[str]) -> set[tuple[int, int]]:
    """(start, end) of each word in the text that the words make up."""
    ends = list(accumulate(map(len, words)))
    return set(zip([0, *ends[:-1]], ends, strict=True)) if ends else set()


def segmentation_score(gold: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> SegmentationScore:
    """Score the words of each sentence against the gold's. Raises ValueError where the two are not the same text.

    F1 is 2 right / (gold + found) over all sentences; its interval resamples sentences.
    """
    if len(gold) != len(found):
        raise ValueError(f"{len(found)} sentences for {len(gold)}")
    right, sizes = [], []
    total_gold = total_found = 0
    for number, (true, said) in enumerate(zip(gold, found, strict=True)):
        if "".join(true) != "".join(said):
            raise ValueError(
                f"sentence {number + 1} is another text: {''.join(said)[:40]!r} for {''.join(true)[:40]!r}"
            )
        right.append(2 * len(word_spans(true) & word_spans(said)))
        sizes.append(len(true) + len(said))
        total_gold += len(true)
        total_found += len(said)
    hits = sum(right) // 2
    return SegmentationScore(
        precision=hits / total_found if total_found else 0.0,
        recall=hits / total_gold if total_gold else 0.0,
        f1=bootstrap_ratio(right, sizes),
        gold=total_gold,
        found=total_found,
        right=hits,
    )

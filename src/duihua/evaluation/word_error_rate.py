"""Word error rate and character error rate: how many words must be changed to turn what was said into what was meant.

The fewest substitutions, deletions and insertions that turn the hypothesis into the reference (Levenshtein's distance over
words), summed over all lines and divided by the words of all references; above 1 where much was added. Of Chinese, which puts
no spaces between words, characters are counted, spaces left out: a word error rate would measure the segmenter.

Why `normalise` is a choice and stands in the result: speech recognition is usually scored without case and punctuation,
translation with them, and the two numbers cannot be compared.

From: V. Levenshtein, "Binary codes capable of correcting deletions, insertions, and reversals", 1966; the distance by rows,
R. Wagner and M. Fischer, "The String-to-String Correction Problem", J. ACM 1974.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from duihua.errors import DataError
from duihua.evaluation.intervals import Interval, bootstrap_ratio

Unit = Literal["word", "character"]


@dataclass(frozen=True)
class ErrorRate:
    """edits / units over all lines. units: words or characters of the references. rate: with an interval over lines."""

    rate: Interval
    edits: int
    units: int
    unit: Unit
    normalised: bool

    def to_dict(self) -> dict[str, Any]:
        """As it stands in JSON."""
        return {
            **self.rate.to_dict(),
            "edits": self.edits,
            "units": self.units,
            "unit": self.unit,
            "normalised": self.normalised,
        }


def error_rate(
    hypotheses: Sequence[str],
    references: Sequence[str],
    unit: Unit = "word",
    *,
    normalise: bool = False,
    rounds: int = 1000,
    seed: int = 0,
) -> ErrorRate:
    """The error rate of hypotheses[i] against references[i]. Raises DataError for another number of lines or no words."""
    if len(hypotheses) != len(references):
        raise DataError(
            f"{len(hypotheses):,} hypotheses, {len(references):,} references",
            where=f"{unit} error rate",
            remedy="Give one reference a line",
        )
    split = words if unit == "word" else characters
    pairs = [
        (split(said, normalise), split(meant, normalise)) for said, meant in zip(hypotheses, references, strict=True)
    ]
    edits, units = [distance(said, meant) for said, meant in pairs], [len(meant) for _, meant in pairs]
    if not sum(units):
        raise DataError(
            f"the references hold no {unit}", where=f"{unit} error rate", remedy="Give references with text"
        )
    rate = bootstrap_ratio(edits, units, resamples=rounds, seed=seed)
    return ErrorRate(rate, sum(edits), sum(units), unit, normalise)


def words(text: str, normalise: bool = False) -> list[str]:
    """What stands between white space."""
    return (plain(text) if normalise else text).split()


def characters(text: str, normalise: bool = False) -> list[str]:
    """Every character but white space."""
    return [character for character in (plain(text) if normalise else text) if not character.isspace()]


def plain(text: str) -> str:
    """Without differences of width and case; punctuation becomes a space, except within a word (don't, 3.5)."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    kept = []
    for place, character in enumerate(folded):
        inside = 0 < place < len(folded) - 1 and folded[place - 1].isalnum() and folded[place + 1].isalnum()
        mark = unicodedata.category(character)[0] in "PS"
        kept.append(" " if mark and not (inside and character in "'.-") else character)
    return "".join(kept)


def distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Fewest substitutions, deletions and insertions that turn one sequence into the other."""
    if not first or not second:
        return len(first) + len(second)
    known = {unit: place for place, unit in enumerate(dict.fromkeys([*first, *second]))}
    other = np.array([known[unit] for unit in second])
    steps = np.arange(len(second) + 1)
    row = steps.copy()  # distance of nothing to each beginning of `second`
    for done, unit in enumerate(first, start=1):
        best = np.empty_like(row)
        best[0] = done
        best[1:] = np.minimum(row[1:] + 1, row[:-1] + (other != known[unit]))
        row = np.minimum.accumulate(best - steps) + steps  # insertions: from any place to the left, one a step
    return int(row[-1])

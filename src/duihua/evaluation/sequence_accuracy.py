"""Exact match: the share of lines that are right as a whole, and the share of predicted classes that are right.

Why two counts of exact match: "the same" may mean the same characters, or the same text to a reader. The first is strict but
for white space at the ends; the second is that of `greetings.normalise` (width, case, punctuation and white space aside).
Both are shares of independent lines, so their intervals are Wilson's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from duihua.errors import DataError
from duihua.evaluation.classification import ClassificationScore, score
from duihua.evaluation.greetings import normalise
from duihua.evaluation.intervals import Interval, wilson


def exact_match(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Interval, Interval]:
    """(strict, normalised) share of hypotheses[i] that equal one of references[i]."""
    if len(hypotheses) != len(references):
        raise DataError(
            f"{len(hypotheses):,} hypotheses, {len(references):,} references",
            where="exact match",
            remedy="Give one reference a line",
        )
    pairs = list(zip(hypotheses, references, strict=True))
    strict = sum(said.strip() in [one.strip() for one in meant] for said, meant in pairs)
    loose = sum(normalise(said) in [normalise(one) for one in meant] for said, meant in pairs)
    return wilson(strict, len(pairs)), wilson(loose, len(pairs))


def predictions_score(
    rows: Iterable[tuple[Mapping[str, Any], str]], prediction: str = "prediction", label: str = "label"
) -> ClassificationScore:
    """Score rows (with their place in the file) that hold a predicted and a true class. Raises DataError for a bad row."""
    said: list[str] = []
    true: list[str] = []
    for row, place in rows:
        for name, column in ((prediction, said), (label, true)):
            value = row.get(name)
            if isinstance(value, bool) or not isinstance(value, str | int):
                problem = f"no {name}" if value is None else f"{name} is neither a text nor a whole number"
                raise DataError(problem, where=place, remedy=f"Give each row a {prediction} and a {label}")
            column.append(str(value))
    if not said:
        raise DataError("no predictions", where="predictions", remedy="Give a file with one JSON object a line")
    return score(true, said, sorted({*true, *said}))

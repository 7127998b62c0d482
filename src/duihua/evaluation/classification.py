"""How well a classifier classifies: accuracy, F1, Matthews' correlation and the confusion table, beside the majority class.

Why four numbers: on uneven classes accuracy flatters. On MRPC, where 66.5 % of the test pairs are paraphrases, always saying
"equivalent" has accuracy 66.5 % and F1 79.9, without looking at a single sentence; its Matthews correlation is 0. So the
majority class of the training part stands beside every result, scored by the same code.

Why two intervals: a test of 1,725 items moves accuracy by two points from one draw of items to the next (Wilson's interval),
and a training run by one or two from one seed to the next (Student's interval over runs). Neither covers for the other.
Two models are compared on the same items and the same seeds, which takes out what both share.

From: B. W. Matthews, "Comparison of the predicted and observed secondary structure of T4 phage lysozyme", 1975; J. Gorodkin,
"Comparing two K-category assignments by a K-category correlation coefficient", 2004, equation 8 (more than two classes);
C. J. van Rijsbergen, "Information Retrieval", 1979, chapter 7 (F).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from duihua.evaluation.intervals import Interval, t_interval, wilson


@dataclass(frozen=True)
class Confusion:
    """How often each class was taken for each: `counts[i][j]` items of class `labels[i]` were called `labels[j]`."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def n(self) -> int:
        """Items."""
        return sum(map(sum, self.counts))

    @property
    def right(self) -> int:
        """Items called by their own class."""
        return sum(self.counts[i][i] for i in range(len(self.labels)))

    def to_dict(self) -> dict[str, Any]:
        """As it stands in result.json: labels, counts (rows are the true classes)."""
        return {"labels": list(self.labels), "counts": [list(row) for row in self.counts]}


def confusion(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> Confusion:
    """The confusion table of predictions, over `labels` in their order. Raises ValueError for a class not among them."""
    if len(truth) != len(predicted):
        raise ValueError(f"{len(predicted)} predictions for {len(truth)} items")
    if len(set(labels)) != len(labels):
        raise ValueError("a class is named twice")
    place = {label: index for index, label in enumerate(labels)}
    unknown = sorted({*truth, *predicted} - place.keys())
    if unknown:
        raise ValueError(f"not among the classes: {', '.join(unknown)}")
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(counts, ([place[label] for label in truth], [place[label] for label in predicted]), 1)
    return Confusion(tuple(labels), tuple(tuple(int(count) for count in row) for row in counts))


def accuracy(table: Confusion) -> Interval:
    """Share of right items with Wilson's 95 % interval."""
    return wilson(table.right, table.n)


def f1(table: Confusion, label: str) -> float:
    """F1 of one class: 2 right / (times said + times true). 0 where it is never said and never true."""
    index = table.labels.index(label)
    right = table.counts[index][index]
    total = sum(table.counts[index]) + sum(row[index] for row in table.counts)
    return 2 * right / total if total else 0.0


def macro_f1(table: Confusion) -> float:
    """Mean of the F1 of every class that is true or said at least once: small classes weigh as much as large ones."""
    used = [
        label
        for index, label in enumerate(table.labels)
        if sum(table.counts[index]) or any(row[index] for row in table.counts)
    ]
    return sum(f1(table, label) for label in used) / len(used) if used else math.nan


def matthews(table: Confusion) -> float:
    """Matthews' correlation coefficient, for any number of classes (Gorodkin 2004): 1 right, 0 by chance.

    0 where only one class is ever said or ever true: such predictions carry nothing.
    """
    counts = np.array(table.counts, dtype=object)  # Python's integers: products of counts may pass 64 bits
    true, said = counts.sum(axis=1), counts.sum(axis=0)
    n = table.n
    numerator = n * table.right - int((true * said).sum())
    spread = (n * n - int((said * said).sum())) * (n * n - int((true * true).sum()))
    return numerator / math.sqrt(spread) if spread else 0.0


@dataclass(frozen=True)
class ClassificationScore:
    """What one set of predictions is worth. `f1` is of the positive class where there is one, None otherwise."""

    accuracy: Interval
    f1: float | None
    macro_f1: float
    matthews: float
    confusion: Confusion
    positive: str | None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in result.json."""
        return {
            "accuracy": self.accuracy.to_dict(),
            "f1": self.f1,
            "macro_f1": self.macro_f1,
            "matthews": self.matthews,
            "positive": self.positive,
            "confusion": self.confusion.to_dict(),
        }


def score(
    truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str], positive: str | None = None
) -> ClassificationScore:
    """All numbers of one set of predictions. positive: the class whose F1 is asked for, in two-class tasks."""
    table = confusion(truth, predicted, labels)
    if positive is not None and positive not in table.labels:
        raise ValueError(f"{positive} is not among the classes")
    of_positive = None if positive is None else f1(table, positive)
    return ClassificationScore(accuracy(table), of_positive, macro_f1(table), matthews(table), table, positive)


def majority_baseline(
    trained_on: Sequence[str], truth: Sequence[str], labels: Sequence[str], positive: str | None = None
) -> ClassificationScore:
    """The score of always saying the class that is most frequent in training (of several, the first in `labels`)."""
    if not trained_on:
        raise ValueError("no training labels: which class is most frequent cannot be told")
    counts = Counter(trained_on)
    most = max(labels, key=lambda label: counts[label])
    return score(truth, [most] * len(truth), labels, positive)


def over_seeds(scores: Sequence[ClassificationScore]) -> dict[str, Any]:
    """Each number's mean over runs with Student's 95 % interval, as it stands in result.json."""
    found: dict[str, Any] = {
        "accuracy": t_interval([score.accuracy.value for score in scores]).to_dict(),
        "macro_f1": t_interval([score.macro_f1 for score in scores]).to_dict(),
        "matthews": t_interval([score.matthews for score in scores]).to_dict(),
    }
    of_positive = [score.f1 for score in scores if score.f1 is not None]
    found["f1"] = t_interval(of_positive).to_dict() if len(of_positive) == len(scores) and scores else None
    return found


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of the second model less that of the first, on the same items, mean over seeds.

    over_seeds: Student's interval of the differences of runs with equal seeds: would other runs find it?
    over_items: percentile interval over resampled test items, the runs as they are: would other items show it?
    """

    over_seeds: Interval
    over_items: Interval

    @property
    def value(self) -> float:
        """The mean difference, as a share (0.03 is three points)."""
        return self.over_seeds.value

    def to_dict(self) -> dict[str, Any]:
        """As it stands in result.json."""
        return {
            "value": self.value,
            "over_seeds": self.over_seeds.to_dict(),
            "over_items": self.over_items.to_dict(),
        }


def paired_difference(
    first: Sequence[Sequence[bool]], second: Sequence[Sequence[bool]], *, resamples: int = 2000, seed: int = 0
) -> PairedDifference:
    """Compare two models run with the same seeds on the same items.

    first[s][i], second[s][i]: whether the run with seed s was right on item i. An item is drawn with all of its runs, so
    that what makes an item hard for both falls out. Raises ValueError where the two differ in seeds or items.
    """
    before, after = _table(first), _table(second)
    if before.shape != after.shape:
        raise ValueError(f"{before.shape} seeds and items in the first, {after.shape} in the second: pairs are needed")
    differences_si = after - before  # (seeds, items), each -1, 0 or 1
    runs = differences_si.mean(axis=1)
    items = differences_si.mean(axis=0)
    generator = np.random.default_rng(seed)
    means = [float(items[generator.integers(0, len(items), len(items))].mean()) for _ in range(resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return PairedDifference(
        t_interval(runs.tolist()), Interval(float(items.mean()), float(low), float(high), len(items))
    )


def _table(right: Sequence[Sequence[bool]]) -> npt.NDArray[np.float64]:
    lengths = {len(run) for run in right}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError("every run needs the same items, and at least one")
    return np.asarray(right, dtype=np.float64)

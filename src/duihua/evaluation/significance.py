"""Is the difference between two systems more than chance? Resampling tests for any score of a whole test set.

Why resampling: BLEU, perplexity and bits per byte are no averages over items but functions of sums over them (matched n-grams
and lengths; nats and bytes), so no formula gives their error. Every item brings one row of numbers, a score is a function of
the rows' sum, and both questions are answered by summing other rows:
- how large is the difference? Draw the items anew, with replacement, both systems with the same draw (paired bootstrap):
  the middle 95 % of the differences are the interval;
- could it be chance? If the systems were equal, each item's two outputs could be exchanged without anyone noticing
  (approximate randomisation): p is the share of random exchanges whose difference is at least as large as the one found,
  (count + 1) / (rounds + 1). The bootstrap's p, given beside it, is the share of the drawn differences, moved to mean zero,
  that reach the difference found, on either side; 1 for a single item, which drawn anew is always itself. (sacrebleu's, after
  Moses, takes absolute values before it moves them, which makes p too small where two systems are close; its randomisation
  agrees with ours.)

A p-value of a test that was run many times, on many systems, is not what it says: correct for it. And items are taken for
independent; documents and sentences of one source are only roughly so.

From: P. Koehn, "Statistical Significance Tests for Machine Translation Evaluation", EMNLP 2004, section 4; S. Riezler, J.
Maxwell, "On Some Pitfalls in Automatic Evaluation and Significance Testing for MT", 2005 (both algorithms, and why exchange
for p); E. W. Noreen, "Computer-Intensive Methods for Testing Hypotheses", 1989 (the + 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duihua.errors import DataError
from duihua.evaluation.intervals import Interval

Rows = NDArray[np.float64]
"""(items, numbers): what each item brings."""
Score = Callable[[NDArray[np.float64]], float]
"""A score out of the rows' sum, (numbers,)."""
NUMBERS_AT_ONCE = 2**22
"""Draws held in memory at a time."""


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same items. difference: second less first, with its bootstrap interval.

    p_value: approximate randomisation, two-sided. bootstrap_p_value: of the paired bootstrap, two-sided. rounds: of either.
    """

    first: float
    second: float
    difference: Interval
    p_value: float
    bootstrap_p_value: float
    rounds: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """As it stands in JSON."""
        return {
            "first": self.first,
            "second": self.second,
            "difference": self.difference.to_dict(),
            "p_value": self.p_value,
            "bootstrap_p_value": self.bootstrap_p_value,
            "rounds": self.rounds,
            "seed": self.seed,
        }


def ratio(sums: NDArray[np.float64]) -> float:
    """First sum over the second: a mean where the second number of each item is 1; not-a-number where that sum is 0."""
    return float(sums[0] / sums[1]) if sums[1] else math.nan


def as_rows(*columns: Sequence[float]) -> Rows:
    """Columns of equal length as rows."""
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def bootstrap_interval(rows: Rows, score: Score, *, rounds: int = 1000, seed: int = 0) -> Interval:
    """The score of all rows with its 95 % percentile interval over draws of whole items. `n` counts the items."""
    _check(rows)
    value = score(rows.sum(axis=0))
    drawn = [score(sums) for (sums,) in _draws([rows], rounds, seed)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Interval(value, float(low), float(high), len(rows))


def compare(first: Rows, second: Rows, score: Score, *, rounds: int = 1000, seed: int = 0) -> Comparison:
    """Compare two systems, row i of both being about the same item. Raises DataError where the items differ in number."""
    if len(first) != len(second):
        raise DataError(
            f"{len(first):,} items of the first system, {len(second):,} of the second: they are compared item by item",
            where="compare",
            remedy="Give both systems the same items in the same order",
        )
    _check(first)
    before, after = score(first.sum(axis=0)), score(second.sum(axis=0))
    found = after - before
    drawn = np.array([score(b) - score(a) for a, b in _draws([first, second], rounds, seed)])
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    least = abs(found) - 1e-12 * max(1.0, abs(before), abs(after))  # sums in another order differ in their last bits
    spread = int((np.abs(drawn - drawn.mean()) >= least).sum()) if len(first) > 1 else rounds  # one item has no spread
    exchanged = sum(abs(score(b) - score(a)) >= least for a, b in _exchanges(first, second, rounds, seed))
    return Comparison(
        before,
        after,
        Interval(found, float(low), float(high), len(first)),
        (exchanged + 1) / (rounds + 1),
        (spread + 1) / (rounds + 1),
        rounds,
        seed,
    )


def _draws(systems: Sequence[Rows], rounds: int, seed: int) -> Iterator[tuple[NDArray[np.float64], ...]]:
    """Each round: as many items as there are, with replacement, the same for every system; their sums."""
    generator = np.random.default_rng(seed)
    items = len(systems[0])
    for some in _portions(rounds, items):
        times = np.stack([np.bincount(generator.integers(0, items, items), minlength=items) for _ in range(some)])
        yield from zip(*(times.astype(np.float64) @ rows for rows in systems), strict=True)


def _exchanges(
    first: Rows, second: Rows, rounds: int, seed: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Each round: every item's two outputs are exchanged with probability one half; the sums of both sides."""
    generator = np.random.default_rng(seed)
    difference = second - first
    of_first, of_second = first.sum(axis=0), second.sum(axis=0)
    for some in _portions(rounds, len(first)):
        exchanged = generator.integers(0, 2, (some, len(first))).astype(np.float64) @ difference
        yield from zip(of_first + exchanged, of_second - exchanged, strict=True)


def _portions(rounds: int, items: int) -> Iterator[int]:
    most = max(1, NUMBERS_AT_ONCE // items)
    for start in range(0, rounds, most):
        yield min(most, rounds - start)


def _check(rows: Rows) -> None:
    if not len(rows):
        raise DataError("there are no items to score", where="compare", remedy="Give texts, tasks or lines")

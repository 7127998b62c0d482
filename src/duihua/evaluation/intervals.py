"""How sure a measured number is: Wilson for shares, the bootstrap for averages and ratios, Student's t for a few seeds.

Why: a held-out set of a few hundred examples moves a share by several points from one draw to the next, so no share or
average of this project is shown without its interval.

From: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927 (equation for p');
B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile interval);
Student, "The Probable Error of a Mean", Biometrika 1908; M. Abramowitz, I. Stegun, "Handbook of Mathematical Functions",
1964, 26.7.3 and 26.7.4 (the t distribution as a finite sum).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.float64]

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval and the number of examples behind it."""

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, float | int]:
        """As it stands in result.json: value, low, high, n."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


@dataclass(frozen=True)
class PairedMean:
    """Mean of `after - before` over pairs, with the standard error of that mean."""

    value: float
    standard_error: float
    n: int

    def to_dict(self) -> dict[str, float | int]:
        """As it stands in result.json: value, standard_error, n."""
        return {"value": self.value, "standard_error": self.standard_error, "n": self.n}


def wilson(successes: float, n: int, z: float = Z_95) -> Interval:
    """Wilson score interval of a share: `successes` of `n` independent trials, of which a tie is half a success.

    Unlike the textbook p +- z sqrt(p(1-p)/n) it never leaves [0, 1] and is not of width zero at 0 or n successes.
    No trials at all give the interval [0, 1] around not-a-number.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half), n)


def bootstrap_mean(values: Sequence[float], *, resamples: int = 1000, seed: int = 0) -> Interval:
    """Mean of `values` with the 95 % percentile interval over resamples of whole examples. `n` counts the examples."""
    return bootstrap_ratio(values, [1.0] * len(values), resamples=resamples, seed=seed)


def bootstrap_ratio(
    numerators: Sequence[float], denominators: Sequence[float], *, resamples: int = 1000, seed: int = 0
) -> Interval:
    """sum(numerators) / sum(denominators) with a 95 % percentile interval that resamples whole examples.

    Right for token accuracy and the like: tokens of one conversation are not independent, conversations are. Example i
    brings numerators[i] (right tokens) and denominators[i] (tokens); both are drawn together. `n` counts the examples.
    """
    top, bottom = _columns(numerators, denominators)
    if bottom.sum() == 0:
        return Interval(math.nan, math.nan, math.nan, len(top))
    low, high = np.quantile(_resampled(top, bottom, resamples, np.random.default_rng(seed)), [0.025, 0.975])
    return Interval(float(top.sum() / bottom.sum()), float(low), float(high), len(top))


def bootstrap_difference(
    before: tuple[Sequence[float], Sequence[float]],
    after: tuple[Sequence[float], Sequence[float]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """sum/sum of `after` less that of `before`, each (numerators, denominators) of examples as in `bootstrap_ratio`.

    For two groups that share no example: each is resampled by itself. `n` counts the examples of both.
    """
    groups = [_columns(*before), _columns(*after)]
    n = sum(len(top) for top, _ in groups)
    if any(bottom.sum() == 0 for _, bottom in groups):
        return Interval(math.nan, math.nan, math.nan, n)
    generator = np.random.default_rng(seed)
    drawn = [_resampled(top, bottom, resamples, generator) for top, bottom in groups]
    low, high = np.quantile([second - first for first, second in zip(*drawn, strict=False)], [0.025, 0.975])
    first, second = (float(top.sum() / bottom.sum()) for top, bottom in groups)
    return Interval(second - first, float(low), float(high), n)


def _columns(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[Numbers, Numbers]:
    top, bottom = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if top.shape != bottom.shape or top.ndim != 1:
        raise ValueError(f"{top.shape} numerators for {bottom.shape} denominators")
    return top, bottom


def _resampled(top: Numbers, bottom: Numbers, resamples: int, generator: np.random.Generator) -> list[float]:
    """The ratio of sums in each resample of whole examples; one without a denominator is passed over."""
    ratios = []
    for _ in range(resamples):
        drawn = generator.integers(0, len(top), len(top))
        weight = bottom[drawn].sum()
        if weight > 0:
            ratios.append(float(top[drawn].sum() / weight))
    return ratios


def paired_mean(before: Sequence[float], after: Sequence[float]) -> PairedMean:
    """Mean of after[i] - before[i] and its standard error, s / sqrt(n) with s the sample deviation (n - 1).

    Pairs take the difficulty of the prompt out of the comparison, which two separate means would leave in. One pair has
    no deviation: its standard error is infinite.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} values before, {len(after)} after: pairs are needed")
    if not len(before):
        return PairedMean(math.nan, math.inf, 0)
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    n = len(differences)
    error = float(differences.std(ddof=1) / math.sqrt(n)) if n > 1 else math.inf
    return PairedMean(float(differences.mean()), error, n)


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of a few independent runs (seeds) with Student's interval: mean +- t s / sqrt(n), n - 1 degrees of freedom.

    With three runs t is 4.3: the normal distribution's 1.96 would claim less than half of that width. One run says
    nothing about others: its interval is infinite. `n` counts the runs.
    """
    runs = np.asarray(values, dtype=np.float64)
    n = len(runs)
    if n == 0:
        return Interval(math.nan, -math.inf, math.inf, 0)
    mean = float(runs.mean())
    half = t_quantile(n - 1, confidence) * float(runs.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    return Interval(mean, mean - half, mean + half, n)


def t_quantile(degrees: int, confidence: float = 0.95) -> float:
    """The t that |T| stays below with probability `confidence`, for T of Student's distribution with `degrees` >= 1."""
    if degrees < 1 or not 0 < confidence < 1:
        raise ValueError(f"{degrees} degrees of freedom, confidence {confidence}")
    low, high = 0.0, 1.0
    while _t_within(high, degrees) < confidence:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if _t_within(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _t_within(t: float, degrees: int) -> float:
    """P(|T| < t): Abramowitz and Stegun 26.7.3 for odd degrees, 26.7.4 for even ones."""
    angle = math.atan2(t, math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = 0.0
    for power in range(1 if odd else 0, degrees - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total

"""n-gram language models with interpolated Kneser-Ney smoothing.

    P_k(w | h) = max(a_k(h w) - D(a_k(h w)), 0) / A_k(h)  +  gamma_k(h) P_{k-1}(w | h without its first)
    gamma_k(h) = sum_w D(a_k(h w)) / A_k(h),   A_k(h) = sum_w a_k(h w),   P_0 = 1 / vocabulary

At the highest order a_k is how often an n-gram occurred. Below it, a_k(g) is the number of different tokens that g followed
(Kneser and Ney 1995): "Francisco" is frequent, yet follows nothing but "San", so that where the context is unknown it should
not be likely. The probabilities of all tokens after any context sum to 1, seen or not.

From: R. Kneser, H. Ney, "Improved backing-off for m-gram language modeling", 1995; S. Chen, J. Goodman, "An empirical study of
smoothing techniques for language modeling", 1999, equations 24 to 27 (interpolated form, three discounts). `smoothing`
"absolute" takes raw counts at every order (Ney, Essen, Kneser 1994), which is worse; "none" of order 1 is relative frequency.

How it is stored: every distinct k-gram has a row. Its code is (row of its first k - 1 tokens) * vocabulary + last token, so
that codes fit 64 bits at any order, the followers of a context lie together, and a lookup is a binary search: a trie in
sorted arrays. A million tokens are counted in about a second; nothing is a Python object.

A sequence begins with a separator that is context and not predicted; it stands for all tokens before it too, so that every
predicted token has a full context of n - 1. That rule is the same in counting, scoring and writing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from duihua.errors import ConfigError, DataError
from duihua.models.counts.discounts import Discounting, Discounts, estimate

Smoothing = Literal["kneser-ney", "absolute", "none"]
Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
NOWHERE = -1
"""The row of an n-gram that was never met."""


@dataclass(frozen=True)
class Order:
    """The k-grams of one k. codes: sorted, (rows,); of order 1 they are the ids themselves. counts: a_k of each row;
    0 for a row that is only the beginning of a context. contexts: rows of order k - 1."""

    codes: Ids
    counts: Ids
    contexts: int
    discounts: Discounts


class NGram:
    """A language model over ids. Make one with `fit`, or load one (models/counts/ngram_bundle.py)."""

    def __init__(self, vocabulary_size: int, separator: int, smoothing: Smoothing, orders: Sequence[Order]) -> None:
        self.vocabulary_size, self.separator, self.smoothing = vocabulary_size, separator, smoothing
        self.orders = tuple(orders)
        self._totals: list[Floats] = []
        self._gammas: list[Floats] = []
        for order in self.orders:
            context = order.codes // vocabulary_size
            total = np.asarray(np.bincount(context, weights=order.counts, minlength=order.contexts), dtype=np.float64)
            taken = np.bincount(context, weights=order.discounts.of(order.counts), minlength=order.contexts)
            self._totals.append(total)
            self._gammas.append(np.divide(taken, total, out=np.ones_like(taken), where=total > 0))

    # -- counting -------------------------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        sequences: Iterable[Sequence[int] | Ids],
        order: int,
        vocabulary_size: int,
        separator: int,
        *,
        smoothing: Smoothing = "kneser-ney",
        discounting: Discounting = "modified",
        discount: float = 0.0,
    ) -> NGram:
        """Count `sequences` of ids, each without the separator that stands before it.

        A sequence that shall be able to end holds the separator at its end; then its end is predicted too. discount: one
        for all counts and orders instead of an estimate (0: estimate). Raises DataError for no text or an id outside the
        vocabulary, ConfigError for an impossible order, smoothing or discount.
        """
        _check(order, smoothing, discount)
        ids, depth = _padded(sequences, order, separator)
        if not np.any(depth >= order - 1):
            raise DataError("there is no text to count", where="n-gram", remedy="Give more text")
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= vocabulary_size:
            raise DataError(
                f"the id {low if low < 0 else high} is not one of {vocabulary_size:,}",
                where="n-gram",
                remedy="Encode the text with the vocabulary that the model is for",
            )
        codes, counts, firsts, rows = _tables(ids, depth, order, vocabulary_size)
        contexts = [1, *(len(table) for table in codes[:-1])]
        found = []
        for k in range(order):
            adjusted = counts[k]
            if smoothing == "kneser-ney" and k + 1 < order:
                longer = firsts[k + 1][counts[k + 1] > 0]  # where each different longer n-gram was met first
                adjusted = np.bincount(rows[k][longer], minlength=len(codes[k]))
            if smoothing == "none":
                discounts = Discounts((0.0, 0.0, 0.0), "given")
            elif discount:
                discounts = Discounts((discount,) * 3, "given")
            else:
                discounts = estimate(adjusted, discounting)
            found.append(Order(codes[k], adjusted.astype(np.int64), contexts[k], discounts))
        return cls(vocabulary_size, separator, smoothing, found)

    # -- scoring --------------------------------------------------------------------------------------------------

    @property
    def order(self) -> int:
        """Tokens that are looked at together: 2 is a bigram model."""
        return len(self.orders)

    def log_probabilities(self, ids: Sequence[int] | npt.NDArray[Any]) -> Floats:
        """Natural logarithm of the probability of each token of `ids` but the first, given those before it: (len - 1,).

        Where the first is the separator it stands for all tokens before it too. Otherwise nothing is known of what came
        before, and the first tokens are predicted from shorter contexts. -inf is possible only without smoothing.
        """
        given = np.asarray(ids, dtype=np.int64)
        if len(given) < 2:
            return np.zeros(0)
        if given.min() < 0 or given.max() >= self.vocabulary_size:
            raise ValueError(f"ids must be from 0 to {self.vocabulary_size - 1}")
        before = self.order - 2 if given[0] == self.separator else 0
        padded = np.concatenate([np.full(max(0, before), self.separator, dtype=np.int64), given])
        probability = np.full(len(padded), 0.0 if self.smoothing == "none" else 1.0 / self.vocabulary_size)
        context = np.zeros(len(padded), dtype=np.int64)  # the empty one
        for order, total, gamma in zip(self.orders, self._totals, self._gammas, strict=True):
            at = np.maximum(context, 0)
            row = np.where(context == NOWHERE, NOWHERE, _find(order.codes, at * self.vocabulary_size + padded))
            count = np.where(row == NOWHERE, 0, order.counts[row])
            known = (context != NOWHERE) & (total[at] > 0)
            own = (count - order.discounts.of(count)) / np.where(known, total[at], 1.0)
            probability = np.where(known, own + gamma[at] * probability, probability)
            context = np.concatenate([[NOWHERE], row[:-1]])
        with np.errstate(divide="ignore"):
            logs: Floats = np.log(probability[len(padded) - len(given) + 1 :])
        return logs

    def distribution(self, context: Sequence[int]) -> Floats:
        """The probability of every token after `context`: (vocabulary,), sums to 1.

        Of the context the last n - 1 tokens count. One that begins with the separator is the beginning of a text.
        """
        size = self.vocabulary_size
        tokens = list(context)
        if tokens and tokens[0] == self.separator:
            tokens = [self.separator] * (self.order - 2) + tokens
        tokens = tokens[len(tokens) - (self.order - 1) :] if self.order > 1 else []
        probability = np.full(size, 0.0 if self.smoothing == "none" else 1.0 / size)
        for k, (order, totals, gammas) in enumerate(zip(self.orders, self._totals, self._gammas, strict=True)):
            row = self._row(tokens[len(tokens) - k :]) if k <= len(tokens) else NOWHERE
            if row == NOWHERE or totals[row] == 0:
                continue
            first, last = np.searchsorted(order.codes, [row * size, (row + 1) * size])
            counts = order.counts[first:last]
            probability *= gammas[row]
            probability[order.codes[first:last] - row * size] += (counts - order.discounts.of(counts)) / totals[row]
        return probability

    def _row(self, tokens: Sequence[int]) -> int:
        """The row of an n-gram of len(tokens), 0 of the empty one."""
        row = 0
        for order, token in zip(self.orders, tokens, strict=False):
            row = int(_find(order.codes, np.array([row * self.vocabulary_size + token]))[0])
            if row == NOWHERE:
                break
        return row

    # -- writing --------------------------------------------------------------------------------------------------

    def generate(
        self, prompt: Sequence[int] = (), *, tokens: int = 100, temperature: float = 1.0, seed: int = 0
    ) -> list[int]:
        """Up to `tokens` ids after the separator and `prompt`, drawn one after the other, until the separator comes (it is
        not given). temperature 0 takes the likeliest each time. Depends on the arguments alone."""
        return list(self.stream(prompt, tokens=tokens, temperature=temperature, seed=seed))

    def stream(
        self, prompt: Sequence[int] = (), *, tokens: int = 100, temperature: float = 1.0, seed: int = 0
    ) -> Iterator[int]:
        """`generate`, one id after the other."""
        generator = np.random.default_rng(seed)
        context = [self.separator] * max(1, self.order - 1) + list(prompt)
        for _ in range(tokens):
            chances = self.distribution(context[-max(1, self.order - 1) :] if self.order > 1 else [])
            if temperature == 0:
                token = int(chances.argmax())
            else:
                scaled = chances if temperature == 1 else np.power(chances, 1 / temperature)
                token = int(np.searchsorted(np.cumsum(scaled), generator.random() * scaled.sum(), side="right"))
            if token == self.separator:
                return
            context.append(token)
            yield token


def _check(order: int, smoothing: Smoothing, discount: float) -> None:
    if order < 1:
        raise ConfigError(
            f"must be at least 1, found {order}", where="order", remedy="Set it to 1 or more, or leave it out"
        )
    if smoothing == "none" and order > 1:
        raise ConfigError(
            "without smoothing a context that was never met has no probabilities",
            where="smoothing",
            remedy="Choose order 1, or kneser-ney",
        )
    if not 0 <= discount < 1:
        raise ConfigError(
            f"must be from 0 (estimated) to below 1, found {discount}",
            where="discount",
            remedy="Set 0 to have it estimated from the counts",
        )


def _padded(sequences: Iterable[Sequence[int] | Ids], order: int, separator: int) -> tuple[Ids, Ids]:
    """All sequences, order - 1 separators before each, as one array; and each token's place in its own sequence."""
    before = np.full(order - 1, separator, dtype=np.int64)
    parts: list[Ids] = []
    lengths: list[int] = []
    for sequence in sequences:
        if len(sequence):
            parts += [before, np.asarray(sequence, dtype=np.int64)]
            lengths.append(len(before) + len(sequence))
    ids = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    starts = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths) if lengths else ids
    return ids, np.arange(len(ids)) - starts


def _tables(
    ids: Ids, depth: Ids, order: int, vocabulary_size: int
) -> tuple[list[Ids], list[Ids], list[Ids], list[Ids]]:
    """For k = 1 ... order: the sorted codes of the k-grams, how often each ends on a predicted token, where each is met
    first, and the row of the k-gram that ends at each place of `ids` (NOWHERE where it would reach over a beginning)."""
    codes, counts, firsts, rows = [], [], [], []
    predicted = depth >= order - 1
    row = np.zeros(len(ids), dtype=np.int64)
    for k in range(1, order + 1):
        inside = np.flatnonzero(depth >= k - 1)
        before = row[inside - 1] if k > 1 else row[inside]
        found, first, inverse = np.unique(
            before * vocabulary_size + ids[inside], return_index=True, return_inverse=True
        )
        row = np.full(len(ids), NOWHERE, dtype=np.int64)
        row[inside] = inverse
        codes.append(found)
        counts.append(np.bincount(inverse, weights=predicted[inside], minlength=len(found)).astype(np.int64))
        firsts.append(inside[first])
        rows.append(row)
    return codes, counts, firsts, rows


def _find(codes: Ids, wanted: Ids) -> Ids:
    """The row of each code, NOWHERE where it is not there."""
    place = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    return np.where(codes[place] == wanted, place, NOWHERE)

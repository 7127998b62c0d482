"""n-gram models: against formulas written out with dictionaries, by hand, and as probabilities must be."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from duihua.errors import ConfigError, DataError
from duihua.models.counts.discounts import LAST_RESORT, Discounts, estimate
from duihua.models.counts.ngram import NGram

END, SIZE = 0, 12


def corpus(seed: int = 0, sequences: int = 60, skew: float = 1.3) -> list[list[int]]:
    """Sequences that end with the separator; small ids are frequent, and the id 11 never occurs."""
    generator = np.random.default_rng(seed)
    chances = 1 / np.arange(1, SIZE - 1) ** skew
    made = []
    for _ in range(sequences):
        length = int(generator.integers(1, 12))
        made.append([*(1 + generator.choice(SIZE - 2, length, p=chances / chances.sum())).tolist(), END])
    return made


class Slow:
    """Interpolated Kneser-Ney by its formulas, one n-gram at a time, with dictionaries of tuples."""

    def __init__(
        self, sequences: Sequence[Sequence[int]], order: int, *, three: bool, continuation: bool = True
    ) -> None:
        self.order, self.three = order, three
        self.a: list[Counter[tuple[int, ...]]] = []
        full: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 1)]
        for sequence in sequences:
            padded = [END] * (order - 1) + list(sequence)
            for end in range(order - 1, len(padded)):
                for k in range(1, order + 1):
                    full[k][tuple(padded[end - k + 1 : end + 1])] += 1
        for k in range(1, order + 1):
            if k == order or not continuation:
                self.a.append(full[k])
            else:
                followed: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
                for gram in full[k + 1]:
                    followed[gram[1:]].add(gram[0])
                self.a.append(Counter({gram: len(before) for gram, before in followed.items()}))

    def discount(self, k: int, count: int) -> float:
        n = Counter(self.a[k - 1].values())
        if not n[1] or not n[2]:
            return 0.75
        Y = n[1] / (n[1] + 2 * n[2])
        if self.three and n[3] and n[4]:
            three = [1 - 2 * Y * n[2] / n[1], 2 - 3 * Y * n[3] / n[2], 3 - 4 * Y * n[4] / n[3]]
            if all(0 < three[r - 1] <= r for r in (1, 2, 3)):
                return three[min(count, 3) - 1]
        return Y

    def probability(self, token: int, context: tuple[int, ...]) -> float:
        k = len(context) + 1
        lower = self.probability(token, context[1:]) if context else 1 / SIZE
        after = {gram[-1]: count for gram, count in self.a[k - 1].items() if gram[:-1] == context}
        total = sum(after.values())
        if not total:
            return lower
        own = max(after[token] - self.discount(k, after[token]), 0) if token in after else 0.0
        return own / total + sum(self.discount(k, count) for count in after.values()) / total * lower

    def logs(self, sequence: Sequence[int]) -> list[float]:
        padded = [END] * (self.order - 1) + list(sequence)
        return [
            math.log(self.probability(padded[i], tuple(padded[i - self.order + 1 : i])))
            for i in range(self.order - 1, len(padded))
        ]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("discounting", ["fixed", "modified"])
def test_scores_are_those_of_the_formulas(order: int, discounting: Any) -> None:
    train, unseen = corpus(0), corpus(1, 15, skew=0.3)
    model = NGram.fit(train, order, SIZE, END, discounting=discounting)
    slow = Slow(train, order, three=discounting == "modified")
    for sequence in [*unseen, [11, 11, 3, END]]:
        assert np.allclose(model.log_probabilities([END, *sequence]), slow.logs(sequence), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [2, 3])
def test_raw_counts_below_the_highest_order_are_another_model(order: int) -> None:
    train, unseen = corpus(0), corpus(1, 15, skew=0.3)
    right, raw = (
        NGram.fit(train, order, SIZE, END, smoothing=name, discounting="fixed") for name in ("kneser-ney", "absolute")
    )
    kneser_ney = Slow(train, order, three=False)
    absolute = Slow(train, order, three=False, continuation=False)
    differ = 0.0
    for sequence in unseen:
        ids = [END, *sequence]
        assert np.allclose(raw.log_probabilities(ids), absolute.logs(sequence))
        differ = max(differ, float(np.abs(raw.log_probabilities(ids) - np.array(kneser_ney.logs(sequence))).max()))
        assert np.allclose(right.log_probabilities(ids), kneser_ney.logs(sequence))
    assert differ > 0.05


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("smoothing", ["kneser-ney", "absolute"])
def test_probabilities_sum_to_one_after_seen_and_unseen_contexts(order: int, smoothing: Any) -> None:
    model = NGram.fit(corpus(), order, SIZE, END, smoothing=smoothing)
    for context in ([], [END], [1], [1, 2, 1, 3], [11], [11, 11, 11], [1, 11, 2], [END, 1], [END, 10, 9]):
        chances = model.distribution(context)
        assert chances.shape == (SIZE,)
        assert (chances > 0).all()
        assert abs(chances.sum() - 1) < 1e-12
        scored = [model.log_probabilities([*context, token])[-1] for token in range(SIZE)] if context else []
        assert not scored or np.allclose(np.exp(scored), chances)


def test_a_bigram_worked_by_hand() -> None:
    """Text: a b a b a c. Bigrams: .a 1, ab 2, ba 2, ac 1, c. 1 (. is the separator). D = n1 / (n1 + 2 n2) = 3 / (3 + 4)."""
    a, b, c = 1, 2, 3
    model = NGram.fit([[a, b, a, b, a, c, END]], 2, 4, END, discounting="fixed")
    D = 3 / 7
    assert model.orders[1].discounts.values == (D, D, D)
    # Different tokens before: a 2 (., b), b 1 (a), c 1 (a), . 1 (c). n1 = 3, n2 = 1: D1 = 3 / 5; gamma = 4 * 3/5 / 5.
    assert model.orders[0].counts.tolist() == [1, 2, 1, 1]
    assert model.orders[0].discounts.values[0] == 3 / 5
    below = {token: (n - 3 / 5) / 5 + (4 * 3 / 5 / 5) / 4 for token, n in {END: 1, a: 2, b: 1, c: 1}.items()}
    assert sum(below.values()) == pytest.approx(1)
    # After a: b twice, c once.
    gamma = 2 * D / 3
    expected = {b: (2 - D) / 3 + gamma * below[b], c: (1 - D) / 3 + gamma * below[c], a: gamma * below[a]}
    found = model.distribution([a])
    assert {token: found[token] for token in (a, b, c)} == pytest.approx(expected)
    assert found[b] != pytest.approx(
        (2 - D) / 3 + gamma * 2 / 6
    )  # raw counts below (b occurs twice of six) are not this


def test_discounts_are_chen_and_goodmans() -> None:
    counts = np.array([1] * 40 + [2] * 16 + [3] * 8 + [4] * 5 + [9] * 3 + [0] * 100)
    Y = 40 / 72
    found = estimate(counts, "modified")
    assert found.origin == "modified"
    assert found.values == pytest.approx((1 - 2 * Y * 16 / 40, 2 - 3 * Y * 8 / 16, 3 - 4 * Y * 5 / 8))
    assert found.of(np.array([0, 1, 2, 3, 9])).tolist() == [0.0, *found.values, found.values[2]]
    assert estimate(counts, "fixed").values == pytest.approx((Y, Y, Y))
    assert estimate(np.array([1] * 5 + [2] * 3), "modified") == Discounts((5 / 11,) * 3, "fixed")  # no 3, no 4
    assert estimate(np.array([2, 2, 5]), "modified") == Discounts((LAST_RESORT,) * 3, "too little text")


def test_contexts_do_not_reach_over_the_beginning_of_a_sequence() -> None:
    apart = NGram.fit([[1, 2, END], [3, 4, END]], 3, 5, END)
    joined = NGram.fit([[1, 2, END, 3, 4, END]], 3, 5, END)
    ids = [END, 3, 4]
    assert apart.log_probabilities(ids)[0] > joined.log_probabilities(ids)[0]  # joined, 3 never began a text


def test_relative_frequencies_are_what_no_smoothing_means() -> None:
    model = NGram.fit([[1, 1, 2, END]], 1, 4, END, smoothing="none")
    assert np.exp(model.log_probabilities([END, 1, 2, END])) == pytest.approx([0.5, 0.25, 0.25])
    assert model.log_probabilities([END, 3])[0] == -math.inf
    with pytest.raises(ConfigError, match="without smoothing"):
        NGram.fit([[1, 2]], 2, 4, END, smoothing="none")


def test_more_context_predicts_a_text_with_structure_better() -> None:
    train = [[1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3, 4, END]] * 5 + corpus(3, 20)
    scores = [
        NGram.fit(train, order, SIZE, END).log_probabilities([END, 1, 2, 3, 4, 1, 2, 3, 5]).mean()
        for order in (1, 2, 3)
    ]
    assert scores[0] < scores[1] < scores[2]


def test_generation_follows_the_distribution_and_the_seed() -> None:
    model = NGram.fit(corpus(), 3, SIZE, END)
    assert model.generate(tokens=40, seed=1) == model.generate(tokens=40, seed=1)
    assert len({tuple(model.generate(tokens=40, seed=seed)) for seed in range(8)}) > 4
    first = Counter(next(iter(model.generate(tokens=1, seed=seed)), END) for seed in range(3000))
    expected = model.distribution([END])
    assert all(abs(first[token] / 3000 - expected[token]) < 0.04 for token in range(SIZE))
    greedy = model.generate([1], tokens=1, temperature=0)
    assert greedy == ([] if expected_end(model) else [int(model.distribution([END, 1]).argmax())])


def expected_end(model: NGram) -> bool:
    return int(model.distribution([END, 1]).argmax()) == END


def test_large_vocabularies_and_high_orders_do_not_overflow() -> None:
    size = 200_000
    text = [199_999, 199_998, 5, 199_999, 199_998, 6, END]
    model = NGram.fit([text] * 3, 6, size, END)
    assert abs(model.distribution([END, 199_999, 199_998]).sum() - 1) < 1e-9
    assert model.distribution([END, 199_999, 199_998])[5] > 0.5


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(DataError, match="no text"):
        NGram.fit([[], []], 2, 5, END)
    with pytest.raises(DataError, match="the id 7 is not one of 5"):
        NGram.fit([[7]], 2, 5, END)
    with pytest.raises(ConfigError, match="at least 1"):
        NGram.fit([[1]], 0, 5, END)
    with pytest.raises(ConfigError, match="below 1"):
        NGram.fit([[1]], 2, 5, END, discount=1.0)

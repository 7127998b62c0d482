"""Resampling tests against sacrebleu's own, against a permutation test counted out, and on systems that are equal."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from duihua.errors import DataError
from duihua.evaluation.bleu import bleu, bleu_metric, chrf, chrf_metric
from duihua.evaluation.comparison import compare_translations
from duihua.evaluation.significance import as_rows, bootstrap_interval, compare, ratio

WORDS = ["the", "a", "cat", "dog", "house", "tree", "runs", "sits", "on", "under", "big", "small", "red", "now", "here"]


def translations(n: int, errors: float, seed: int) -> tuple[list[str], list[str]]:
    """(references, hypotheses with a share of words replaced)."""
    draw = random.Random(seed)
    references = [[draw.choice(WORDS) for _ in range(draw.randint(5, 12))] for _ in range(n)]
    noise = random.Random(seed + round(errors * 1000))
    said = [[noise.choice(WORDS) if noise.random() < errors else word for word in line] for line in references]
    return [" ".join(line) for line in references], [" ".join(line) for line in said]


def test_sums_of_sentence_rows_give_the_corpus_score() -> None:
    references, said = translations(50, 0.3, 0)
    listed = [[each] for each in references]
    for metric, whole in ((bleu_metric("en"), bleu(said, listed, "en")), (chrf_metric(), chrf(said, listed))):
        rows = metric.rows(said, listed)
        assert metric.score(rows.sum(axis=0)) == pytest.approx(whole.value)
        assert metric.signature == whole.signature
        mean_of_lines = np.mean([metric.score(row) for row in rows])  # another number: BLEU is no mean of sentences
        assert mean_of_lines != pytest.approx(whole.value, abs=0.1)


def test_a_system_against_itself_has_no_difference_and_p_one() -> None:
    references, said = translations(60, 0.3, 0)
    found, _ = compare_translations(said, said, [[each] for each in references], "en", rounds=200)
    for name in ("bleu", "chrf"):
        assert found[name].difference.value == 0.0
        assert (found[name].difference.low, found[name].difference.high) == (0.0, 0.0)
        assert found[name].p_value == found[name].bootstrap_p_value == 1.0
    mixed = said[1:] + said[:1]  # the same lines beside the wrong references are not the same system
    other, _ = compare_translations(said, mixed, [[each] for each in references], "en", rounds=200)
    assert other["bleu"].p_value < 0.01


def test_a_single_item_shows_no_difference_beyond_chance_and_two_hundred_do() -> None:
    worse, better = as_rows([3.0], [1.0]), as_rows([2.0], [1.0])
    one = compare(worse, better, ratio, rounds=200)
    assert (one.difference.value, one.p_value, one.bootstrap_p_value) == (-1.0, 1.0, 1.0)
    many = compare(worse.repeat(200, axis=0), better.repeat(200, axis=0), ratio, rounds=200)
    assert many.p_value < 0.01 and many.bootstrap_p_value < 0.01


@pytest.mark.parametrize(("errors", "clear"), [(0.31, False), (0.5, True)])
def test_bleu_p_values_agree_with_sacrebleu(errors: float, clear: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.significance import PairedTest

    monkeypatch.setenv("SACREBLEU_SEED", "1")
    references, first = translations(80, 0.3, 0)
    _, second = translations(80, errors, 0)
    ours, _ = compare_translations(first, second, [[each] for each in references], "en", rounds=500)
    theirs = {}
    for test in ("ar", "bs"):
        named = [("first", first), ("second", second)]
        paired = PairedTest(named, {"BLEU": BLEU(tokenize="13a")}, [references], test_type=test, n_samples=500)
        theirs[test] = paired()[1]["BLEU"][1]
    assert ours["bleu"].second == pytest.approx(theirs["ar"].score)
    assert ours["bleu"].p_value == pytest.approx(theirs["ar"].p_value, abs=0.06)
    assert ours["bleu"].bootstrap_p_value == pytest.approx(ours["bleu"].p_value, abs=0.1)
    if clear:
        assert ours["bleu"].bootstrap_p_value == pytest.approx(theirs["bs"].p_value, abs=0.02)
    else:  # its absolute values before the shift make a difference that is none look like one
        assert theirs["bs"].p_value < ours["bleu"].bootstrap_p_value - 0.05
    assert (ours["bleu"].p_value < 0.05) == clear


def test_approximate_randomisation_nears_the_exact_permutation_test() -> None:
    first, second = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], [2.0, 2.5, 4.5, 3.5, 6.5, 7.0, 7.5, 9.5]
    found = np.mean(second) - np.mean(first)
    differences = np.array(second) - np.array(first)
    extreme = [abs(np.mean(differences * signs)) >= found - 1e-12 for signs in itertools.product([1.0, -1.0], repeat=8)]
    exact = float(np.mean(extreme))
    ones = [1.0] * 8
    made = compare(as_rows(first, ones), as_rows(second, ones), ratio, rounds=5000)
    assert made.difference.value == pytest.approx(found)
    assert made.p_value == pytest.approx(exact, abs=0.02)
    unpaired = (
        np.abs(
            np.mean(np.random.default_rng(0).permuted(np.tile([*first, *second], (5000, 1)), axis=1)[:, :8], axis=1)
            - np.mean([*first, *second])
        )
        * 2
        >= found
    )
    assert np.mean(unpaired) != pytest.approx(exact, abs=0.1), (
        "without pairs the difficulty of items hides the difference"
    )


def test_interval_covers_the_true_ratio_about_95_times_in_100() -> None:
    draw = np.random.default_rng(0)
    hits = narrow = 0
    for seed in range(100):
        weights = draw.integers(1, 20, 60).astype(float)
        rows = as_rows((draw.gamma(2.0, 1.0, 60) * weights).tolist(), weights.tolist())
        interval = bootstrap_interval(rows, ratio, rounds=200, seed=seed)
        hits += interval.low <= 2.0 <= interval.high
        middle, half = interval.value, (interval.high - interval.low) / 6  # a third of the width
        narrow += abs(middle - 2.0) <= half
    assert 88 <= hits <= 99
    assert narrow < 70


def test_other_numbers_of_items_are_refused() -> None:
    with pytest.raises(DataError, match="2 items of the first system, 3 of the second"):
        compare(np.ones((2, 2)), np.ones((3, 2)), ratio)
    with pytest.raises(DataError, match="no items"):
        compare(np.ones((0, 2)), np.ones((0, 2)), ratio)
    with pytest.raises(DataError, match="1 lines of the first system, 2 of the second"):
        compare_translations(["a"], ["a", "b"], [["a"], ["b"]], "en")

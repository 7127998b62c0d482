"""Accuracy, F1, Matthews and the rest equal hand-computed values and scikit-learn; wrong variants do not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from duihua.evaluation.classification import (
    Confusion,
    accuracy,
    confusion,
    f1,
    macro_f1,
    majority_baseline,
    matthews,
    over_seeds,
    paired_difference,
    score,
)

LABELS = ("no", "yes")
# yes: 6 said yes, 2 said no. no: 1 said yes, 3 said no
TRUTH = ["yes"] * 8 + ["no"] * 4
SAID = ["yes"] * 6 + ["no"] * 2 + ["yes"] + ["no"] * 3


def drawn(classes: int, n: int, seed: int, skill: float = 0.4) -> tuple[list[str], list[str], tuple[str, ...]]:
    """Uneven classes, predictions that are right by skill and else drawn."""
    generator = np.random.default_rng(seed)
    shares = np.arange(1, classes + 1) / sum(range(1, classes + 1))
    truth = generator.choice(classes, n, p=shares)
    said = np.where(generator.random(n) < skill, truth, generator.choice(classes, n))
    labels = tuple(f"class {index}" for index in range(classes))
    return [labels[i] for i in truth], [labels[i] for i in said], labels


def test_the_table_has_the_true_classes_as_rows() -> None:
    table = confusion(TRUTH, SAID, LABELS)
    assert table.counts == ((3, 1), (2, 6))
    assert (table.n, table.right) == (12, 9)
    assert confusion(SAID, TRUTH, LABELS).counts == ((3, 2), (1, 6))  # the control: rows and columns changed round


def test_the_numbers_equal_those_by_hand() -> None:
    found = score(TRUTH, SAID, LABELS, positive="yes")
    assert found.accuracy.value == 9 / 12
    assert found.accuracy.n == 12
    assert found.f1 == pytest.approx(2 * 6 / (2 * 6 + 1 + 2))
    assert found.macro_f1 == pytest.approx((12 / 15 + 6 / 9) / 2)
    assert found.matthews == pytest.approx((6 * 3 - 1 * 2) / math.sqrt(7 * 8 * 4 * 5))
    assert score(TRUTH, SAID, LABELS, positive="no").f1 == pytest.approx(6 / 9)
    assert score(TRUTH, SAID, LABELS).f1 is None


@pytest.mark.parametrize(("classes", "n"), [(2, 50), (2, 1725), (4, 300), (20, 500), (20, 30)])
def test_they_equal_scikit_learn(classes: int, n: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    for seed in range(5):
        truth, said, labels = drawn(classes, n, seed)
        table = confusion(truth, said, labels)
        assert np.array_equal(np.array(table.counts), metrics.confusion_matrix(truth, said, labels=list(labels)))
        assert accuracy(table).value == pytest.approx(metrics.accuracy_score(truth, said))
        assert macro_f1(table) == pytest.approx(metrics.f1_score(truth, said, average="macro", zero_division=0))
        assert matthews(table) == pytest.approx(metrics.matthews_corrcoef(truth, said), abs=1e-12)
        per_class = metrics.f1_score(truth, said, labels=list(labels), average=None, zero_division=0)
        assert [f1(table, label) for label in labels] == pytest.approx(per_class.tolist())
        # the controls: the micro average and the binary formula are other numbers
        if classes > 2 and n >= 300:
            assert metrics.f1_score(truth, said, average="micro") != pytest.approx(macro_f1(table), abs=1e-3)


def test_always_the_majority_class_is_right_as_often_as_on_mrpc_and_carries_nothing() -> None:
    """1,147 of MRPC's 1,725 test pairs are equivalent: accuracy 66.5 %, F1 79.9, Matthews 0."""
    truth = ["yes"] * 1147 + ["no"] * 578
    found = majority_baseline(["yes"] * 2753 + ["no"] * 1323, truth, LABELS, positive="yes")
    assert round(100 * found.accuracy.value, 1) == 66.5
    assert round(100 * (found.f1 or 0), 1) == 79.9
    assert found.matthews == 0.0
    # the class is that of training, whatever the test has most of
    assert majority_baseline(["no", "no", "yes"], truth, LABELS).accuracy.value == 578 / 1725
    assert majority_baseline(["yes", "no"], truth, LABELS).confusion.counts == ((578, 0), (1147, 0))  # a tie: the first


def test_a_perfect_and_a_reversed_classifier_have_matthews_one_and_minus_one() -> None:
    assert matthews(confusion(TRUTH, TRUTH, LABELS)) == pytest.approx(1)
    reversed_ = ["no" if label == "yes" else "yes" for label in TRUTH]
    assert matthews(confusion(TRUTH, reversed_, LABELS)) == pytest.approx(-1)


def test_counts_too_large_for_64_bits_do_not_overflow() -> None:
    big = 10**10
    assert matthews(Confusion(LABELS, ((3 * big, big), (2 * big, 6 * big)))) == pytest.approx(16 / math.sqrt(1120))


def test_a_class_that_never_occurs_does_not_pull_the_macro_average_down() -> None:
    table = confusion(TRUTH, SAID, (*LABELS, "never"))
    assert macro_f1(table) == macro_f1(confusion(TRUTH, SAID, LABELS))
    assert f1(table, "never") == 0.0


def test_what_does_not_fit_is_refused() -> None:
    for call, said in [
        (lambda: confusion(["yes"], ["maybe"], LABELS), "not among the classes: maybe"),
        (lambda: confusion(["yes"], [], LABELS), "0 predictions for 1 items"),
        (lambda: confusion([], [], ("a", "a")), "named twice"),
        (lambda: score(TRUTH, SAID, LABELS, positive="maybe"), "maybe is not among"),
        (lambda: majority_baseline([], TRUTH, LABELS), "no training labels"),
        (lambda: paired_difference([[True]], [[True, False]]), "pairs are needed"),
        (lambda: paired_difference([[True], [True, False]], [[True], [True]]), "same items"),
        (lambda: paired_difference([], []), "same items"),
    ]:
        with pytest.raises(ValueError, match=said):
            call()


def test_seeds_have_students_interval() -> None:
    scores = [score(TRUTH, SAID, LABELS, "yes"), score(TRUTH, TRUTH, LABELS, "yes"), score(TRUTH, SAID, LABELS, "yes")]
    found = over_seeds(scores)
    values = [0.75, 1.0, 0.75]
    half = 4.302653 * np.std(values, ddof=1) / math.sqrt(3)
    assert found["accuracy"]["value"] == pytest.approx(np.mean(values))
    assert found["accuracy"]["high"] - found["accuracy"]["value"] == pytest.approx(half)
    assert found["f1"]["n"] == 3
    assert over_seeds([score(TRUTH, SAID, LABELS)])["f1"] is None


def test_pairs_take_out_what_items_and_seeds_share() -> None:
    """Two models of equal hardness profile, the second right on 5 % more items: unpaired intervals would not tell."""
    generator = np.random.default_rng(0)
    easy = generator.random(400) < 0.7
    first = np.stack([easy] * 3)
    better = easy | (np.arange(400) % 20 == 0)
    second = np.stack([better] * 3)
    second[0, 1] = ~second[0, 1]
    found = paired_difference(first.tolist(), second.tolist())
    assert found.value == pytest.approx(second.mean() - first.mean())
    assert found.over_items.low > 0
    assert found.over_items.n == 400
    assert found.over_seeds.n == 3
    assert found.over_seeds.low < found.value < found.over_seeds.high
    unpaired = 1.96 * math.sqrt(2 * 0.7 * 0.3 / 400)
    assert unpaired > 2 * (found.over_items.high - found.value)
    shuffled = generator.permuted(second, axis=1)  # the control: with other items paired the interval holds zero
    assert paired_difference(first.tolist(), shuffled.tolist()).over_items.low < 0


def test_a_difference_of_equal_models_is_zero_and_mirrored_when_they_change_places() -> None:
    generator = np.random.default_rng(1)
    a, b = (generator.random((3, 200)) < share for share in (0.6, 0.7))
    assert paired_difference(a.tolist(), a.tolist()).value == 0
    there, back = paired_difference(a.tolist(), b.tolist()), paired_difference(b.tolist(), a.tolist())
    assert there.value == pytest.approx(-back.value)
    assert there.over_items.low == pytest.approx(-back.over_items.high, abs=1e-9)

"""Scores of classifiers over seeds, by hand: four items of the classes a and b."""

from __future__ import annotations

import pytest

from duihua.stages.class_scores import score_seeds

TRUTH = ["a", "a", "b", "b"]
ANSWERS = [["a", "a", "b", "a"], ["a", "b", "b", "b"], ["a", "a", "b", "b"]]
TRAINED = ["b", "b", "a"]


def test_the_first_seed_is_the_kept_one_and_every_seed_is_listed() -> None:
    metrics = score_seeds(TRUTH, ANSWERS, ("a", "b"), "b", TRAINED, seed=7).metrics()
    assert metrics["accuracy"]["value"] == 0.75  # and not 1.0, the best of the three
    assert [(one["seed"], one["accuracy"]) for one in metrics["seeds"]] == [(7, 0.75), (8, 0.75), (9, 1.0)]
    assert [one["f1"] for one in metrics["seeds"]] == pytest.approx([2 / 3, 4 / 5, 1.0])
    assert metrics["over_seeds"]["accuracy"]["value"] == pytest.approx(2.5 / 3)
    assert metrics["confusion"]["counts"] == [[2, 0], [1, 1]]


def test_the_baseline_says_what_is_most_frequent_in_training() -> None:
    scores = score_seeds(TRUTH, ANSWERS[:1], ("a", "b"), "b", TRAINED, seed=0)
    metrics = scores.metrics()
    assert metrics["baseline"]["accuracy"]["value"] == 0.5
    assert metrics["baseline"]["confusion"]["counts"] == [[0, 2], [0, 2]]  # always b
    assert metrics["over_seeds"] is None  # one run has no spread
    card = scores.card()
    assert card["held-out accuracy"]["value"] == 0.75
    assert card["accuracy of the most frequent class"] == 0.5
    # Control: of other training labels it says the other class.
    other = score_seeds(TRUTH, ANSWERS[:1], ("a", "b"), "b", ["a", "a", "b"], seed=0)
    assert other.metrics()["baseline"]["confusion"]["counts"] == [[2, 0], [2, 0]]

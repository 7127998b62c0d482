"""Classifiers over bags of words: multinomial naive Bayes, and logistic regression. Both are one matrix.

    log P(c | x) = W_c x + b_c - log sum_j exp(W_j x + b_j)

Naive Bayes sets W_c to the logarithms of the smoothed shares of words in class c and b_c to that of the class's own share, in
one pass over the counts; it believes that words come independently, and its probabilities are too sure. Logistic regression
finds the W and b that make the training labels likeliest, with a penalty on the size of W. Where they are fitted it is by
scikit-learn; what is kept is W and b, so that a classifier needs neither scikit-learn nor a pickle to answer.

From: A. McCallum, K. Nigam, "A comparison of event models for naive Bayes text classification", 1998; S. Wang, C. Manning,
"Baselines and bigrams: simple, good sentiment and topic classification", 2012.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from duihua.errors import DataError

ClassifierKind = Literal["linear", "naive-bayes"]
Floats = npt.NDArray[np.float64]
MOST_ITERATIONS = 1000


class BagClassifier:
    """weights: (classes, words). bias: (classes,)."""

    def __init__(self, weights: Floats, bias: Floats, classes: Sequence[str]) -> None:
        if weights.ndim != 2 or bias.shape != (len(classes),) or len(weights) != len(classes):
            raise ValueError(f"weights {weights.shape} and bias {bias.shape} for {len(classes)} classes")
        self.weights, self.bias, self.classes = weights, bias, tuple(classes)

    @classmethod
    def fit(
        cls,
        kind: ClassifierKind,
        vectors: Any,
        labels: Sequence[str],
        *,
        pseudo_count: float = 1.0,
        regularisation: float = 1.0,
    ) -> BagClassifier:
        """Learn from vectors (texts, words), as `BagOfWords.vectors` gives them, and a label for each.

        pseudo_count: added to each word's count in each class (naive Bayes). regularisation: weight of half the squared
        length of W beside the summed loss (linear). Classes are in the order of their names. Raises DataError for one class.
        """
        classes = sorted(set(labels))
        if len(classes) < 2:
            raise DataError(
                f"all examples are of one class, {classes[0]!r}" if classes else "there is no example",
                where="bag of words",
                remedy="Give examples of two classes or more",
            )
        number = {label: place for place, label in enumerate(classes)}
        numbers = np.array([number[label] for label in labels])
        if kind == "naive-bayes":
            from sklearn.naive_bayes import MultinomialNB

            bayes = MultinomialNB(alpha=pseudo_count).fit(vectors, numbers)
            return cls(bayes.feature_log_prob_, bayes.class_log_prior_, classes)
        from sklearn.linear_model import LogisticRegression

        linear = LogisticRegression(C=1 / regularisation, max_iter=MOST_ITERATIONS).fit(vectors, numbers)
        weights, bias = linear.coef_, linear.intercept_
        if len(classes) == 2:  # one row, of the second class against the first
            weights, bias = np.vstack([np.zeros_like(weights), weights]), np.concatenate([[0.0], bias])
        return cls(np.ascontiguousarray(weights, dtype=np.float64), np.asarray(bias, dtype=np.float64), classes)

    def probabilities(self, vectors: Any) -> Floats:
        """(texts, classes), each row summing to 1."""
        logits = vectors @ self.weights.T + self.bias
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: Floats = chances / chances.sum(axis=1, keepdims=True)
        return shares

    def predict(self, vectors: Any) -> list[str]:
        """The likeliest class of each text; of equally likely ones the first by name."""
        return [self.classes[place] for place in (vectors @ self.weights.T + self.bias).argmax(axis=1)]

    def telling_words(self, words: Sequence[str], most: int = 10) -> dict[str, list[str]]:
        """For each class the words whose weight is furthest above their mean over the classes: what it goes by."""
        apart = self.weights - self.weights.mean(axis=0)
        return {
            label: [words[place] for place in np.argsort(-row, kind="stable")[:most]]
            for label, row in zip(self.classes, apart, strict=True)
        }

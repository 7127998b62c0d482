"""What classifiers are worth that differ in their seed alone, as it stands in a stage's result and on its card.

Why the first seed's classifier is the kept one and not the best: choosing by the held-out part would make its score too good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from duihua.evaluation.classification import ClassificationScore, majority_baseline, over_seeds, score


@dataclass(frozen=True)
class SeedScores:
    """The score of each seed, the kept classifier's first, and that of the majority class. seed: the first."""

    scores: tuple[ClassificationScore, ...]
    baseline: ClassificationScore
    seed: int

    def metrics(self) -> dict[str, Any]:
        """For result.json: the kept classifier's scores, the baseline's, each seed's and their means."""
        return {
            **self.scores[0].to_dict(),
            "baseline": self.baseline.to_dict(),
            "seeds": [
                {"seed": self.seed + number, "accuracy": found.accuracy.value, "f1": found.f1}
                | {"macro_f1": found.macro_f1, "matthews": found.matthews}
                for number, found in enumerate(self.scores)
            ],
            "over_seeds": over_seeds(self.scores) if len(self.scores) > 1 else None,
        }

    def card(self) -> dict[str, Any]:
        """For the model card."""
        return {
            "held-out accuracy": self.scores[0].accuracy.to_dict(),
            "accuracy of the most frequent class": self.baseline.accuracy.value,
        }


def score_seeds(
    truth: Sequence[str],
    answers: Sequence[Sequence[str]],
    labels: Sequence[str],
    positive: str | None,
    trained: Sequence[str],
    seed: int,
) -> SeedScores:
    """Score the answers of one seed after the other, from `seed` on. trained: labels of the training part, whose most frequent
    one is the baseline."""
    scores = tuple(score(truth, answer, labels, positive) for answer in answers)
    return SeedScores(scores, majority_baseline(trained, truth, labels, positive), seed)

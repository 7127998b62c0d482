"""How good a reward model is on held-out pairs, in figures: accuracy, calibration, margins, what it owes to length.

Why more than accuracy: PPO climbs the number itself. A model that is right but too sure of it (calibration), or that mostly
counts words (correlation with length), is a worse thing to climb than its accuracy says (Gao, Schulman and Hilton 2023,
"Scaling Laws for Reward Model Overoptimization"; Singhal et al. 2024, "A Long Way to Go: Investigating Length Correlations
in RLHF").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from duihua.evaluation.intervals import wilson
from duihua.stages.encoded_pairs import Pair
from duihua.stages.reward_pairs import KINDS

DESCRIPTIONS = {
    "human": ("judged pairs: a person or a strong model preferred one reply", "人工（或强模型）评判的偏好对"),
    "sampled": (
        "a person's reply against one that a model sampled, same prompt",
        "同一提示下，人写的回复对模型采样的回复",
    ),
    "off_topic": (
        "a person's reply against the reply to another prompt; not part of the headline accuracy",
        "人写的回复对另一提示的回复；不计入总准确率",
    ),
}
CALIBRATION_BINS = 10
Scores = Callable[[Sequence[Sequence[int]]], Tensor]
"""Raw rewards of rows of ids, (n,)."""


def measure(scores_of: Scores, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Held-out accuracy (all and by kind, with Wilson intervals), calibration error and correlation with length.

    The headline is human and sampled pairs together; off-topic pairs are too easy to count. A tie counts as wrong.
    """
    chosen = scores_of([pair.chosen for pair in pairs]) if pairs else torch.zeros(0)
    rejected = scores_of([pair.rejected for pair in pairs]) if pairs else torch.zeros(0)
    right = [bool(value) for value in chosen > rejected]

    def accuracy(*kinds: str) -> dict[str, Any]:
        of_kind = [hit for hit, pair in zip(right, pairs, strict=True) if pair.kind in kinds]
        return share(of_kind)

    headline = [place for place, pair in enumerate(pairs) if pair.kind != "off_topic"]
    lengths = torch.tensor([float(n) for i in headline for n in (pairs[i].chosen_reply, pairs[i].rejected_reply)])
    rewards = torch.tensor([float(r) for i in headline for r in (chosen[i], rejected[i])])
    longer = share_longer([pairs[i] for i in headline])
    by_source = sorted({(pair.source, pair.kind) for pair in pairs})
    return {
        "accuracy": accuracy("human", "sampled"),
        "kinds": {
            kind: {**accuracy(kind), "description": DESCRIPTIONS[kind][0], "description_zh": DESCRIPTIONS[kind][1]}
            for kind in KINDS
        },
        "sources": [
            {"source": source, "kind": kind, **_of_source(right, pairs, source, kind)} for source, kind in by_source
        ],
        "calibration_error": calibration_error((chosen - rejected)[headline]),
        "calibration_curve": calibration_curve((chosen - rejected)[headline]),
        "margins": margin_histogram((chosen - rejected)[headline]),
        "length_correlation": correlation(rewards, lengths),
        "chosen_is_longer": longer,
    }


def heldout_figures(scores_of: Scores, pairs: Sequence[Pair]) -> dict[str, float]:
    """What an evaluation during training says of at least one pair: {"heldout_loss": nats a pair, "heldout_accuracy"}, without
    off-topic pairs where there are others."""
    read = [pair for pair in pairs if pair.kind != "off_topic"] or list(pairs)
    margins = scores_of([pair.chosen for pair in read]) - scores_of([pair.rejected for pair in read])
    return {
        "heldout_loss": -float(torch.nn.functional.logsigmoid(margins.double()).mean()),
        "heldout_accuracy": sum(bool(margin > 0) for margin in margins) / len(read),
    }


def _of_source(right: Sequence[bool], pairs: Sequence[Pair], source: str, kind: str) -> dict[str, Any]:
    hits = [hit for hit, pair in zip(right, pairs, strict=True) if (pair.source, pair.kind) == (source, kind)]
    return share(hits)


def share(hits: Sequence[bool]) -> dict[str, Any]:
    """How many are true, with Wilson's interval; no value (None) where there is nothing to count."""
    found: dict[str, Any] = dict(wilson(sum(hits), len(hits)).to_dict())
    return found if hits else {**found, "value": None}


def calibration_curve(differences_p: Tensor) -> list[dict[str, float | int]]:
    """How sure the model is of p pairs and how often it is right, in ten equal bins of confidence; empty bins are left out.

    Each pair is one statement of confidence max(P, 1 - P) with P = sigmoid(r_chosen - r_rejected), right when P > 1/2; bins
    cover confidences 0.5 to 1. A calibrated model is right as often as it is sure: `right` equals `confidence`.
    """
    probability_p = torch.sigmoid(differences_p.double())
    confidence_p = torch.maximum(probability_p, 1 - probability_p)
    right_p = (differences_p > 0).double()
    bins_p = ((confidence_p - 0.5) * 2 * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    curve: list[dict[str, float | int]] = []
    for number in range(CALIBRATION_BINS):
        inside = bins_p == number
        if bool(inside.any()):
            low, width = 0.5 + number * 0.5 / CALIBRATION_BINS, 0.5 / CALIBRATION_BINS
            figures = {"confidence": float(confidence_p[inside].mean()), "right": float(right_p[inside].mean())}
            curve.append({"low": low, "high": low + width, **figures, "n": int(inside.sum())})
    return curve


def calibration_error(differences_p: Tensor) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3): the mean gap of `calibration_curve`, weighed by pairs."""
    curve = calibration_curve(differences_p)
    return sum(abs(each["right"] - each["confidence"]) * each["n"] for each in curve) / max(1, len(differences_p))


def margin_histogram(differences_p: Tensor) -> list[dict[str, float | int]]:
    """How many of p pairs have a margin r_chosen - r_rejected in each of ten equal steps, the outer ones as far as it goes.

    The steps are those of the standard deviation of the margins, -2.5 to 2.5 of it, so that the unit of the raw reward does
    not matter; `low` and `high` are in the reward's own unit.
    """
    if not len(differences_p):
        return []
    step = float(differences_p.double().pow(2).mean().sqrt()) / 2 or 1.0
    edges = [(place - 5) * step for place in range(11)]
    places = (differences_p.double() / step).floor().clamp(-5, 4).long() + 5
    counts = torch.bincount(places, minlength=10).tolist()
    return [{"low": edges[i], "high": edges[i + 1], "n": counts[i]} for i in range(10)]


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's correlation; 0 where one of the two does not vary or there are fewer than two values."""
    if len(x) < 2:
        return 0.0
    x, y = x.double() - x.double().mean(), y.double() - y.double().mean()
    scale = float(x.norm() * y.norm())
    return float(x @ y) / scale if scale > 0 else 0.0


def share_longer(pairs: Sequence[Pair]) -> float:
    """Share of pairs whose better reply is the longer one, two of one length counted half; 0.5 where there is no pair."""
    if not pairs:
        return 0.5
    longer = sum(pair.chosen_reply > pair.rejected_reply for pair in pairs)
    same = sum(pair.chosen_reply == pair.rejected_reply for pair in pairs)
    return (longer + same / 2) / len(pairs)


def length_statistics(pairs: Sequence[Pair]) -> list[dict[str, float | int | str]]:
    """For each source and kind: pairs, mean tokens of the better and the worse reply, how often the better is longer."""
    groups: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair.source, pair.kind), []).append(pair)
    return [
        {
            "source": source,
            "kind": kind,
            "n": len(group),
            "chosen_tokens": sum(pair.chosen_reply for pair in group) / len(group),
            "rejected_tokens": sum(pair.rejected_reply for pair in group) / len(group),
            "chosen_is_longer": share_longer(group),
        }
        for (source, kind), group in sorted(groups.items())
    ]

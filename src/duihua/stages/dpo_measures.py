"""What a policy trained with DPO is measured by on held-out pairs.

Why the log-ratios of both sides stand beside the accuracy: the loss is of their difference alone, so that a policy can get
every pair right while both of its log-probabilities fall, the good reply's only more slowly (Pal et al. 2024, "Smaug").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from duihua import console
from duihua.stages.configs.dpo import DPOConfig
from duihua.stages.dpo_math import preference_loss
from duihua.stages.encoded_pairs import Pair
from duihua.stages.preference_rows import Tree
from duihua.stages.reward_measures import share
from duihua.stages.reward_pairs import KINDS, accuracy_rows


def heldout_figures(
    config: DPOConfig, pairs: Sequence[Pair], reference_n2: Tensor, policy_n2: Tensor, trees: Sequence[Tree]
) -> dict[str, float]:
    """What an evaluation during training says of at least one pair: {"heldout_loss": of the preference alone, in nats a pair,
    "heldout_accuracy": of the implicit reward}."""
    reference_n2, policy_n2 = _as_compared(config, reference_n2, trees), _as_compared(config, policy_n2, trees)
    losses = preference_loss(
        *policy_n2.unbind(1),
        *reference_n2.unbind(1),
        beta=config.beta,
        loss=config.loss,
        label_smoothing=config.label_smoothing,
    )
    ratios_n2 = policy_n2 - reference_n2
    right = sum(bool(value) for value in ratios_n2[:, 0] > ratios_n2[:, 1])
    return {"heldout_loss": float(losses.double().mean()), "heldout_accuracy": right / len(pairs)}


def _as_compared(config: DPOConfig, logprobs_n2: Tensor, trees: Sequence[Tree]) -> Tensor:
    """Both sides' log-probabilities as the loss takes them: the sums, or with `average_tokens` the means of their tokens."""
    if not (config.average_tokens and len(trees)):
        return logprobs_n2
    return logprobs_n2 / torch.tensor([[len(tree.chosen), len(tree.rejected)] for tree in trees])


def measure(
    config: DPOConfig, pairs: Sequence[Pair], reference_n2: Tensor, policy_n2: Tensor, trees: Sequence[Tree]
) -> dict[str, Any]:
    """Held-out figures: how often the implicit reward prefers the chosen side (all, by kind, by source; a tie is wrong), the
    mean margin and log-ratios in nats, and the same share by the likelihood alone before and after."""
    reference_n2, policy_n2 = _as_compared(config, reference_n2, trees), _as_compared(config, policy_n2, trees)
    ratios_n2 = policy_n2 - reference_n2
    right = [bool(value) for value in ratios_n2[:, 0] > ratios_n2[:, 1]]

    def accuracy(kind: str = "", source: str = "") -> dict[str, Any]:
        chosen = [
            hit
            for hit, pair in zip(right, pairs, strict=True)
            if (not kind or pair.kind == kind) and (not source or pair.source == source)
        ]
        return share(chosen)

    def mean(values: Tensor) -> float | None:
        return float(values.double().mean()) if len(values) else None

    return {
        "accuracy": accuracy(),
        "kinds": {kind: accuracy(kind) for kind in KINDS},
        "sources": [
            {"source": source, "kind": kind, **accuracy(kind, source)}
            for source, kind in sorted({(pair.source, pair.kind) for pair in pairs})
        ],
        "margin": mean(config.beta * (ratios_n2[:, 0] - ratios_n2[:, 1])),
        "log_ratio": {"chosen": mean(ratios_n2[:, 0]), "rejected": mean(ratios_n2[:, 1])},
        "likelihood_prefers_chosen": {
            "before": share([bool(value) for value in reference_n2[:, 0] > reference_n2[:, 1]]),
            "after": share([bool(value) for value in policy_n2[:, 0] > policy_n2[:, 1]]),
        },
    }


def show(metrics: dict[str, Any]) -> None:
    """Held-out accuracy by kind as a table on the console."""
    rows = accuracy_rows(metrics["kinds"], "all", metrics["accuracy"])
    if rows:
        console.table("dpo: held-out preference accuracy", ["kind", "accuracy", "low", "high", "pairs"], rows)
    if metrics["accuracy"]["n"]:
        ratio = metrics["log_ratio"]
        console.say(
            f"dpo: mean margin {metrics['margin']:+.3f}; log pi / pi_ref of the chosen replies {ratio['chosen']:+.2f} nats, "
            f"of the rejected ones {ratio['rejected']:+.2f}"
        )

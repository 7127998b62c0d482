"""What is known of a rollout, logged and shown: the figures of each one, and sampled replies with score, KL and total.

Why apart from the rollout: its figures are read by people, by `duihua doctor ppo`, by `duihua watch` and by the report, who
all rely on these names, and none of them changes what is learnt.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from duihua import console
from duihua.evaluation.repetition import repetition_rate
from duihua.files import write_json
from duihua.stages.replies import Prompt

ROLLOUT_METRICS = (
    "reward",
    "score",
    "gold_score",
    "kl",
    "kl_coefficient",
    "entropy",
    "explained_variance",
    "eos_rate",
    "length",
    "repetition",
    "sampler_difference",
    "iteration",
)
"""What is logged of each rollout. score: the reward model's, normalised; reward: what PPO maximises, the score after the
missing-end penalty less the KL penalty; kl: nats a reply; gold_score: of the replies that have one, not a
number where none has."""


class Judged(NamedTuple):
    """A rollout's figures, n replies of up to r tokens."""

    logprobs_nr: Tensor
    reference_nr: Tensor
    values_nr: Tensor
    entropies_nr: Tensor
    scores_n: Tensor
    gold_n: Tensor | None


class Credit(NamedTuple):
    """What a reply earns and whom it is due to. totals_n: what is maximised, a number a reply. columns: what the loss reads
    of each reply token, (n, r). figures: logged beside the ones that every rollout has."""

    totals_n: Tensor
    columns: dict[str, Tensor]
    figures: dict[str, float]


def reply_figures(
    judged: Judged, mask_nr: Tensor, kl_n: Tensor, totals_n: Tensor, ended_n: Tensor, texts: Sequence[str]
) -> dict[str, float]:
    """The figures that are means over the replies, by their names in ROLLOUT_METRICS."""
    return {
        "reward": float(totals_n.mean()),
        "score": float(judged.scores_n.mean()),
        "gold_score": float("nan") if judged.gold_n is None else float(judged.gold_n.nanmean()),
        "kl": float(kl_n.mean()),
        "entropy": float(judged.entropies_nr.sum() / mask_nr.sum()),
        "eos_rate": float(ended_n.float().mean()),
        "length": float(mask_nr.sum(dim=1).float().mean()),
        "repetition": repetition_rate(texts),
    }


def show_rollout(
    directory: Path,
    iteration: int,
    samples: int,
    prompts: Sequence[Prompt],
    texts: Sequence[str],
    scores_n: Tensor,
    kl_n: Tensor,
    totals_n: Tensor,
    figures: dict[str, float],
) -> None:
    """One sampled reply to the console, a few to <directory>/rollouts/NNNNN.json: score, KL and total beside each."""
    shown = [
        {
            "prompt": prompts[place].messages[-1]["content"],
            "text": texts[place],
            "score": round(float(scores_n[place]), 4),
            "kl": round(float(kl_n[place]), 4),
            "total": round(float(totals_n[place]), 4),
        }
        for place in range(min(samples, len(texts)))
    ]
    known = {name: value for name, value in figures.items() if not math.isnan(value)}
    write_json(directory / "rollouts" / f"{iteration:05d}.json", {"figures": known, "samples": shown})
    if shown:
        first = shown[0]
        gold = f"gold {known['gold_score']:+.3f}, " if "gold_score" in known else ""
        console.say(
            f"rollout {iteration}: score {figures['score']:+.3f}, {gold}KL {figures['kl']:.3f}, "
            f"e.g. {json.dumps(first['prompt'], ensure_ascii=False)} -> "
            f"{json.dumps(first['text'], ensure_ascii=False)} "
            f"(score {first['score']:+.2f}, KL {first['kl']:.2f}, total {first['total']:+.2f})"
        )

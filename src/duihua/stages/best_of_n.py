"""Best of n: several replies to each prompt, and the one that the judge likes best (Stiennon et al. 2020, section 3.4).

Why it is here: no weight moves, so it is the yardstick for every method that moves them, and its distance from the policy
is known beforehand. Choosing the best of n samples draws from a distribution whose KL from the policy is at most
log n - (n - 1) / n nats a reply, whatever the judge (Hilton 2023, "KL divergence of max-of-n"; Beirami et al. 2024 show
that it is a bound, and equal where no two replies tie). The curve of the reward over m = 1..n is estimated from the same n
samples: the expected best of m of them, over all choices of m, which wastes nothing (Nakano et al. 2021, appendix I).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from duihua.engine.randomness import sample_seed
from duihua.stages.replies import Prompt, Reply, Sampler, Scorer, stored_replies

CANDIDATE_ITERATION = 2**31 + 1
"""Stands for the iteration in the seeds of candidates: no rollout has it, nor the comparison of held-out replies."""


def kl_bound(n: int) -> float:
    """log n - (n - 1) / n, in nats a reply: how far the best of n can be from the policy that they are drawn from."""
    return math.log(n) - (n - 1) / n


@dataclass(frozen=True)
class Candidates:
    """scores_pn: the judge's, a row for each prompt. replies: the same rows."""

    prompts: list[Prompt]
    replies: list[list[Reply]]
    scores_pn: Tensor

    def best(self, ended_only: bool = False) -> list[int | None]:
        """The place of each prompt's best reply; the first of equals. ended_only: among those that ended; None for none."""
        places: list[int | None] = []
        for row, scores in zip(self.replies, self.scores_pn.tolist(), strict=True):
            known = [place for place, reply in enumerate(row) if reply.ended or not ended_only]
            places.append(max(known, key=lambda place: scores[place]) if known else None)
        return places

    def curve(self) -> list[dict[str, float]]:
        """For m = 1..n the reward of the best of m, its standard error over prompts, and the bound of the KL."""
        n = self.scores_pn.shape[1]
        ordered_pn = self.scores_pn.double().sort(dim=1).values
        rows = []
        for m in range(1, n + 1):
            best_p = ordered_pn @ torch.tensor(best_weights(n, m), dtype=torch.float64)
            error = float(best_p.std()) / math.sqrt(len(best_p)) if len(best_p) > 1 else math.nan
            rows.append({"n": m, "reward": float(best_p.mean()), "standard_error": error, "kl_bound": kl_bound(m)})
        return rows

    def to_rows(self) -> list[dict[str, Any]]:
        """Prompt and scores, for a file or --json; texts are the caller's to decode."""
        return [
            {"prompt": prompt.messages[-1]["content"], "messages": prompt.messages, "scores": scores}
            for prompt, scores in zip(self.prompts, self.scores_pn.tolist(), strict=True)
        ]


def best_weights(n: int, m: int) -> list[float]:
    """For the i-th smallest of n values the chance that it is the largest of m drawn without replacement: C(i - 1, m - 1) /
    C(n, m). They sum to 1."""
    return [math.comb(i, m - 1) / math.comb(n, m) for i in range(n)]


def sample_candidates(
    sample: Sampler,
    score: Scorer,
    prompts: Sequence[Prompt],
    n: int,
    seed: int,
    folder: Path | None = None,
    key: str = "",
) -> Candidates:
    """n replies to each prompt, judged. folder: where they are kept while they are made, under `key` (a hash of policy and
    settings), so that an interrupted run goes on."""
    asked = [prompt for prompt in prompts for _ in range(n)]
    seeds = [
        sample_seed(seed, CANDIDATE_ITERATION, prompt.index, candidate) for prompt in prompts for candidate in range(n)
    ]
    made = sample(asked, seeds) if folder is None else stored_replies(sample, asked, seeds, folder, key, "candidates")
    scores = score(asked, made).float().cpu().view(len(prompts), n)
    return Candidates(list(prompts), [made[start : start + n] for start in range(0, len(made), n)], scores)

"""The equations of preference training with PPO, each as one small pure function on tensors.

Why apart from the stage: every line here has a wrong twin that still trains a little (a sign, a shift by one token, padding
that counts), so each function is short enough to be checked by hand and is tested against a direct definition.

Sources: Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage Estimation" (GAE);
Schulman et al. 2017, "Proximal Policy Optimization Algorithms" (the clipped objective, eq. 7); Ziegler et al. 2019,
"Fine-Tuning Language Models from Human Preferences" (per-token KL reward, eq. 2; adaptive coefficient, section 2.2);
Stiennon et al. 2020, "Learning to Summarize from Human Feedback"; Ouyang et al. 2022, "Training Language Models to Follow
Instructions with Human Feedback"; Huang et al. 2024, "The N+ Implementation Details of RLHF with PPO".

Shapes: b sequences, t generated tokens. Every sequence starts at column 0; `mask_bt` is true on the tokens that were
really generated (the stop token included) and false behind them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all ranks. On one rank it is the identity."""


def kl_rewards(
    logprobs_bt: Tensor, reference_logprobs_bt: Tensor, scores_b: Tensor, mask_bt: Tensor, coefficient: float
) -> Tensor:
    """Reward of every generated token: the KL penalty everywhere, the score of the whole reply on its last token.

    r_t = -beta (log pi(a_t) - log pi_ref(a_t)), and + score at the last generated token (Ziegler et al. 2019, eq. 2; the
    estimator is k1, whose sum over a reply is its log-ratio). Zero behind the reply. Returns (b, t) in fp32.
    """
    penalty_bt = -coefficient * (logprobs_bt.float() - reference_logprobs_bt.float())
    rewards_bt = torch.where(mask_bt, penalty_bt, torch.zeros_like(penalty_bt))
    last_b = mask_bt.sum(dim=1) - 1
    at_last_bt = torch.arange(mask_bt.shape[1], device=mask_bt.device)[None] == last_b[:, None]
    return rewards_bt + at_last_bt * scores_b.float()[:, None]


def generalized_advantages(
    rewards_bt: Tensor, values_bt: Tensor, mask_bt: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Advantages and returns by GAE (Schulman et al. 2016, eq. 16): A_t = sum_l (gamma lambda)^l delta_{t+l}.

    delta_t = r_t + gamma V(s_{t+1}) - V(s_t), with V = 0 after the last generated token: the reply is over, whether it
    ended by itself or was cut. Returns (advantages, returns = advantages + values), both (b, t), zero behind the reply.
    """
    zero_bt = torch.zeros_like(rewards_bt)
    values_bt = torch.where(mask_bt, values_bt, zero_bt)
    rewards_bt = torch.where(mask_bt, rewards_bt, zero_bt)
    advantages_bt = zero_bt.clone()
    next_advantage_b = zero_bt[:, 0]
    next_value_b = zero_bt[:, 0]
    for step in range(rewards_bt.shape[1] - 1, -1, -1):
        delta_b = rewards_bt[:, step] + gamma * next_value_b - values_bt[:, step]
        next_advantage_b = (delta_b + gamma * lam * next_advantage_b) * mask_bt[:, step]
        next_value_b = values_bt[:, step]
        advantages_bt[:, step] = next_advantage_b
    return advantages_bt, advantages_bt + values_bt


def whiten(values_bt: Tensor, mask_bt: Tensor, *, shift_mean: bool = True, reduce: Reduce | None = None) -> Tensor:
    """Scale to standard deviation 1 (and mean 0 unless `shift_mean` is false) over the masked entries of all ranks.

    The statistics are sums, so they do not depend on how the batch is split: `reduce` adds them up over ranks. Called once
    on the whole rollout, before it is cut into minibatches. Rewards are whitened without shifting the mean, because their
    sign says whether a reply is better than the average one (Huang et al. 2024, detail 9). Zero outside the mask.
    """
    reduce = reduce or (lambda tensor: tensor)
    kept = torch.where(mask_bt, values_bt, torch.zeros_like(values_bt)).double()
    count, total = reduce(torch.stack([mask_bt.sum().double(), kept.sum()]))
    mean = total / count
    squares = reduce((torch.where(mask_bt, kept - mean, torch.zeros_like(kept)) ** 2).sum())
    scaled = (kept - mean) * torch.rsqrt(squares / count + 1e-8)
    if not shift_mean:
        scaled = scaled + mean
    return torch.where(mask_bt, scaled, torch.zeros_like(scaled)).to(values_bt.dtype)


class PolicyLoss(NamedTuple):
    """Per-token terms, all (b, t): the loss, the probability ratio, whether it was clipped, and the KL estimate."""

    loss: Tensor
    ratio: Tensor
    clipped: Tensor
    approximate_kl: Tensor


def policy_loss(logprobs_bt: Tensor, old_logprobs_bt: Tensor, advantages_bt: Tensor, *, clip: float) -> PolicyLoss:
    """The clipped surrogate of PPO, negated (Schulman et al. 2017, eq. 7), for each token.

    -min(ratio A, clip(ratio, 1 - eps, 1 + eps) A) with ratio = exp(logp - logp_old). The KL estimate is k3 =
    (ratio - 1) - log ratio: never negative, and 0 exactly when the two are equal.
    """
    log_ratio_bt = logprobs_bt - old_logprobs_bt
    ratio_bt = log_ratio_bt.exp()
    unclipped_bt = -advantages_bt * ratio_bt
    clipped_bt = -advantages_bt * ratio_bt.clamp(1 - clip, 1 + clip)
    return PolicyLoss(
        torch.maximum(unclipped_bt, clipped_bt),
        ratio_bt.detach(),
        (clipped_bt > unclipped_bt).detach(),
        (ratio_bt - 1 - log_ratio_bt).detach(),
    )


def value_loss(values_bt: Tensor, old_values_bt: Tensor, returns_bt: Tensor, *, clip: float) -> Tensor:
    """Half the squared error of the critic, for each token, where a step further than `clip` earns nothing.

    0.5 max((V - R)^2, (clip(V, V_old - eps, V_old + eps) - R)^2): outside the clip, moving on towards the return has zero
    gradient (Huang et al. 2024, detail 13). Returns (b, t).
    """
    limited_bt = old_values_bt + (values_bt - old_values_bt).clamp(-clip, clip)
    return 0.5 * torch.maximum((values_bt - returns_bt) ** 2, (limited_bt - returns_bt) ** 2)


def explained_variance(values_bt: Tensor, returns_bt: Tensor, mask_bt: Tensor) -> float:
    """1 - Var(R - V) / Var(R) over the masked tokens: 1 is a perfect critic, 0 a constant one. 0 if all R are equal."""
    returns = returns_bt[mask_bt].double()
    errors = returns - values_bt[mask_bt].double()
    variance = float(returns.var(unbiased=False))
    return 1 - float(errors.var(unbiased=False)) / variance if variance > 1e-12 else 0.0


@dataclass
class KLController:
    """The coefficient of the KL penalty: fixed, or steered towards a target (Ziegler et al. 2019, section 2.2).

    beta <- beta (1 + clip(KL / target - 1, -0.2, 0.2) * sequences / horizon). Without a target it is fixed.
    """

    coefficient: float
    target: float | None = None
    horizon: float = 10_000.0

    def update(self, kl: float, sequences: int) -> None:
        """Take the mean KL of `sequences` sampled replies (nats a reply) into account."""
        if self.target is not None:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.coefficient *= 1 + error * sequences / self.horizon


def penalise_missing_end(scores_b: Tensor, ended_b: Tensor, *, rule: str, value: float) -> Tensor:
    """Scores of replies that did not end by their stop token, put down.

    rule "replace": they get -`value` (Huang et al. 2024: -1); "subtract": `value` is taken off, so that the order among
    them is kept; "none": left alone. `ended_b` looks at the generated tokens only: a stop token inside the prompt is
    every earlier turn's and says nothing.
    """
    if rule == "replace":
        return torch.where(ended_b, scores_b, torch.full_like(scores_b, -value))
    if rule == "subtract":
        return torch.where(ended_b, scores_b, scores_b - value)
    assert rule == "none", rule
    return scores_b

"""Comparing a reply with others to the same prompt: the advantages of GRPO and RLOO, and the KL term of GRPO's loss.

Why no critic: what a prompt's replies earn on average is estimated by sampling a few of them, which for one reward at the
end of a reply is as good a baseline as a learnt value and costs no network. Shao et al. 2024, "DeepSeekMath", section
4.1, divide by the group's standard deviation; Ahmadian et al. 2024, "Back to Basics: Revisiting REINFORCE Style
Optimization", section 2.3, leave the reply itself out of the mean, which keeps the gradient unbiased; Liu et al. 2025,
"Understanding R1-Zero-Like Training", show what the divisions by deviation and by length favour.

Shapes: n replies, those to one prompt next to each other, `group` of them; t tokens.
"""

from __future__ import annotations

from torch import Tensor

SMALLEST_DEVIATION = 1e-4
"""Added to a group's standard deviation: a group whose replies all earn the same teaches nothing, and divides by nothing."""


def group_advantages(rewards_n: Tensor, group: int, *, leave_one_out: bool, scale: bool) -> Tensor:
    """How much better each reply is than its group, (n,).

    leave_one_out: against the mean of the others (RLOO), r_i - (sum of the others) / (group - 1); otherwise against the
    mean of all (GRPO). scale: divided by the group's standard deviation (that of a sample, over group - 1).
    """
    rewards_pg = rewards_n.float().view(-1, group)
    mean_p1 = rewards_pg.mean(dim=1, keepdim=True)
    if leave_one_out:
        advantages_pg = rewards_pg - (mean_p1 * group - rewards_pg) / (group - 1)
    else:
        advantages_pg = rewards_pg - mean_p1
    if scale:
        advantages_pg = advantages_pg / (rewards_pg.std(dim=1, keepdim=True) + SMALLEST_DEVIATION)
    return advantages_pg.flatten()


def solved_alike(rewards_n: Tensor, group: int) -> float:
    """The share of groups whose replies all earn the same: they have no gradient."""
    rewards_pg = rewards_n.view(-1, group)
    return float((rewards_pg == rewards_pg[:, :1]).all(dim=1).float().mean())


def k3(logprobs_bt: Tensor, reference_logprobs_bt: Tensor) -> Tensor:
    """The estimate pi_ref / pi - log(pi_ref / pi) - 1 of KL(pi || pi_ref) for each token, (b, t): never negative, unbiased
    over the policy's own samples (Schulman 2020, "Approximating KL divergence"; Shao et al. 2024, equation 4)."""
    log_ratio_bt = reference_logprobs_bt - logprobs_bt
    return log_ratio_bt.exp() - log_ratio_bt - 1


def token_weights(mask_bt: Tensor, average: str, limit: int) -> tuple[Tensor, float]:
    """The weight of each token's loss, (b, t), and what the weighted sum is divided by.

    average "tokens": 1, and the number of tokens; "replies": 1 / the reply's length, and the number of replies; "limit":
    1, and `limit` tokens for each reply, whatever its length.
    """
    weights_bt = mask_bt.float()
    if average == "tokens":
        return weights_bt, float(mask_bt.sum())
    if average == "limit":
        return weights_bt, float(len(mask_bt) * limit)
    assert average == "replies", average
    return weights_bt / mask_bt.sum(dim=1, keepdim=True).clamp(min=1), float(len(mask_bt))


def whole_reply_rewards(scores_n: Tensor, kl_n: Tensor, coefficient: float) -> Tensor:
    """The score less the KL penalty of the whole reply, (n,): what the reward is when the penalty stands in it."""
    return scores_n - coefficient * kl_n if coefficient else scores_n

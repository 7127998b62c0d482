"""Settings of the GRPO stage. No torch here, so that help stays quick.

Where a default is a paper's it says so; the learning rate and the sizes fit a model of a few million parameters on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from duihua.errors import ConfigError
from duihua.stages.configs.answering import RolloutConfig
from duihua.stages.configs.checks import require_sources
from duihua.stages.configs.verifiable import RuleConfig


@dataclass(frozen=True)
class GRPOConfig(RolloutConfig):
    """How the policy is trained by comparing several of its replies to each prompt with one another, without a critic."""

    kind: Literal["grpo", "rloo"] = "grpo"
    """What a reply is compared with. grpo: the mean of its group, in units of the group's standard deviation (Shao et al.
    2024, section 4.1.2); rloo: the mean of the other replies of its group (Ahmadian et al. 2024, section 2.3)."""
    rules: tuple[RuleConfig, ...] = ()
    """Rewards that are worked out, added up. Empty: the reward model of the input `reward`, which is not read otherwise."""
    iterations: int = 40
    """Rollouts, if none is stopped early: the number of updates is iterations x epochs x minibatches."""
    rollout_prompts: int = 16
    """Prompts of a rollout."""
    group: int = 8
    """Replies to each prompt that are compared with one another."""
    epochs: int = 1
    """Passes over each rollout, freshly shuffled each time (Shao et al. 2024: 1)."""
    advantage_scale: Literal["auto", "deviation", "none"] = "auto"
    """Whether advantages are divided by the standard deviation of their group. auto: as the paper of the `kind` has it (grpo:
    deviation, rloo: none). none with grpo weighs easy and hard prompts alike (Liu et al. 2025, Dr. GRPO)."""
    loss_average: Literal["tokens", "replies", "limit"] = "tokens"
    """What the summed loss is divided by. tokens: all reply tokens of the update; replies: each reply's loss by its own length,
    then by their number (Shao et al. 2024, equation 3), which is gentle on long wrong replies; limit: reply_tokens for
    each reply, whatever its length (Liu et al. 2025)."""
    kl: Literal["auto", "loss", "reward"] = "auto"
    """Where the distance from the reference is held down. loss: a term of the loss, the estimate k3 for each token; reward:
    taken off the score of each reply. auto: as the paper of the `kind` has it (grpo: loss, rloo: reward)."""
    kl_coefficient: float = 0.04
    """Weight of the KL penalty (Shao et al. 2024: 0.04). 0: none."""

    def __post_init__(self) -> None:
        require_sources(self)
        super().__post_init__()
        self.check_rollouts("GRPO", 0.04)
        if self.gold and self.gold == self.rules:
            raise ConfigError(
                "these are the very rules that are trained on, which cannot show whether they are gamed",
                where="gold",
                remedy="Leave gold out, or state another rule, one that says what is meant",
            )
        if self.group < 2:
            raise ConfigError(
                f"a reply is compared with others of its group, found a group of {self.group}",
                where="group",
                remedy="Choose 2 or more",
            )
        if self.rollout_prompts * self.group % self.minibatches:
            raise ConfigError(
                f"{self.rollout_prompts * self.group} replies cannot be cut into {self.minibatches} equal minibatches",
                where="minibatches",
                remedy="Choose a divisor of rollout_prompts x group",
            )

    @property
    def divides_by_deviation(self) -> bool:
        """Whether advantages are scaled by their group's standard deviation."""
        return self.kind == "grpo" if self.advantage_scale == "auto" else self.advantage_scale == "deviation"

    @property
    def kl_in_loss(self) -> bool:
        """Whether the KL penalty is a term of the loss, and not of the reward."""
        return self.kind == "grpo" if self.kl == "auto" else self.kl == "loss"

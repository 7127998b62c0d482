"""Settings of the GRPO stage. No torch here, so that help stays quick.

Where a default is a paper's it says so; the learning rate and the sizes fit a model of a few million parameters on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from duihua.data.source import SourceConfig
from duihua.errors import ConfigError
from duihua.nn.lora_config import LoraConfig
from duihua.stages.configs.kl_target import check_kl_target
from duihua.stages.configs.verifiable import RuleConfig
from duihua.training.config import OptimizerConfig, TrainerConfig


@dataclass(frozen=True)
class GRPOConfig:
    """How the policy is trained by comparing several of its replies to each prompt with one another, without a critic."""

    kind: Literal["grpo", "rloo"] = "grpo"
    """What a reply is compared with. grpo: the mean of its group, in units of the group's standard deviation (Shao et al.
    2024, section 4.1.2); rloo: the mean of the other replies of its group (Ahmadian et al. 2024, section 2.3)."""
    sources: tuple[SourceConfig, ...] = (
        SourceConfig(name="chatterbot-en"),
        SourceConfig(name="chatterbot-zh"),
        SourceConfig(name="chitchat"),
        SourceConfig(name="alpaca-en"),
        SourceConfig(name="alpaca-zh"),
    )
    """Conversations whose prompts are answered; drawn in proportion to their weights."""
    rules: tuple[RuleConfig, ...] = ()
    """Rewards that are worked out, added up. Empty: the reward model of the input `reward`, which is not read otherwise."""
    train_prompts: int = 2000
    """Most training prompts."""
    heldout_prompts: int = 192
    """Most held-out prompts, on which the policy is compared before and after."""
    prompt_tokens: int = 96
    """Longest prompt; longer ones are left out and counted."""
    reply_tokens: int = 32
    """Most tokens of a reply; one that has not ended by then is cut there."""
    iterations: int = 40
    """Rollouts, if none is stopped early: the number of updates is iterations x epochs x minibatches."""
    rollout_prompts: int = 16
    """Prompts of a rollout."""
    group: int = 8
    """Replies to each prompt that are compared with one another."""
    epochs: int = 1
    """Passes over each rollout, freshly shuffled each time (Shao et al. 2024: 1)."""
    minibatches: int = 2
    """Updates in one pass over a rollout."""
    micro_batch: int = 16
    """Replies in memory at a time; it does not change what is learnt."""
    temperature: float = 1.0
    """Temperature of the policy: of the sampling and of every log-probability."""
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
    kl_target: float | None = None
    """Nats a reply towards which the coefficient is steered. None: it is fixed. 0 is refused: no policy could
    learn anything at no distance from the reference."""
    kl_horizon: float = 10_000.0
    """Replies over which the steering acts."""
    missing_end: Literal["subtract", "replace", "none"] = "subtract"
    """What befalls the score of a reply that did not end: less `missing_end_value`, replaced by its negative, or nothing."""
    missing_end_value: float = 1.0
    """Size of that penalty."""
    clip: float = 0.2
    """How far the probability ratio may move before it earns nothing more."""
    stop_kl: float = 0.1
    """The rest of a rollout is given up when an update meets a larger approximate KL (nats a token) between the policy
    and the one that sampled; 0 never does."""
    slots: int = 64
    """Replies sampled at a time."""
    samples: int = 8
    """Held-out prompts whose replies before and after are shown."""
    lora: LoraConfig | None = None
    """Train low-rank adapters instead of all weights. Policy and reference then share one set of weights."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(kind="adamw", learning_rate=2e-4, beta1=0.9, beta2=0.999, epsilon=1e-5)
    )
    """Which parameters move how fast; the rate falls linearly to 0."""
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(log_every=1))
    """How the training loop runs."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("there is no source of prompts", where="sources", remedy="Name at least one")
        for name in (
            "train_prompts", "heldout_prompts", "prompt_tokens", "reply_tokens", "iterations", "rollout_prompts",
            "epochs", "minibatches", "micro_batch", "slots",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"must be at least 1, found {getattr(self, name)}", where=name)
        for name in ("kl_coefficient", "missing_end_value", "stop_kl", "samples"):
            if getattr(self, name) < 0:
                raise ConfigError(f"cannot be negative, found {getattr(self, name)}", where=name)
        for name in ("temperature", "clip", "kl_horizon"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"must be above 0, found {getattr(self, name)}", where=name)
        if self.group < 2:
            raise ConfigError(
                f"a reply is compared with others of its group, found a group of {self.group}",
                where="group",
                remedy="Choose 2 or more",
            )
        check_kl_target(self.kl_target, self.kl_coefficient, 0.04)
        if self.lora is not None and self.lora.dropout:
            raise ConfigError(
                f"GRPO compares two forwards of the same weights, found a dropout of {self.lora.dropout}",
                where="lora.dropout",
                remedy="Set it to 0",
            )
        if self.rollout_prompts * self.group % self.minibatches:
            raise ConfigError(
                f"{self.rollout_prompts * self.group} replies cannot be cut into {self.minibatches} equal minibatches",
                where="minibatches",
                remedy="Choose a divisor of rollout_prompts x group",
            )

    @property
    def steps(self) -> int:
        """Updates in all."""
        return self.iterations * self.epochs * self.minibatches

    @property
    def divides_by_deviation(self) -> bool:
        """Whether advantages are scaled by their group's standard deviation."""
        return self.kind == "grpo" if self.advantage_scale == "auto" else self.advantage_scale == "deviation"

    @property
    def kl_in_loss(self) -> bool:
        """Whether the KL penalty is a term of the loss, and not of the reward."""
        return self.kind == "grpo" if self.kl == "auto" else self.kl == "loss"

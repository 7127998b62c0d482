"""What every stage is told whose policy answers prompts and learns from its own replies. No torch here.

`AnsweringConfig` is what PPO, GRPO and rejection sampling share: which prompts, how they are answered, what is shown.
`RolloutConfig` adds what PPO and GRPO share, which learn from one rollout after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from duihua.data.source import SourceConfig
from duihua.nn.lora_config import LoraConfig
from duihua.stages.configs.checks import above_zero, at_least_one, no_dropout, not_negative
from duihua.stages.configs.kl_target import check_kl_target
from duihua.stages.configs.verifiable import RuleConfig
from duihua.training.config import OptimizerConfig, TrainerConfig


@dataclass(frozen=True)
class AnsweringConfig:
    """Prompts and how they are answered."""

    sources: tuple[SourceConfig, ...] = (
        SourceConfig(name="chatterbot-en"),
        SourceConfig(name="chatterbot-zh"),
        SourceConfig(name="chitchat"),
        SourceConfig(name="alpaca-en"),
        SourceConfig(name="alpaca-zh"),
    )
    """Conversations whose prompts are answered; drawn in proportion to their weights."""
    train_prompts: int = 2000
    """Most training prompts."""
    heldout_prompts: int = 192
    """Most held-out prompts, on which the policy is compared before and after."""
    prompt_tokens: int = 96
    """Longest prompt; longer ones are left out and counted."""
    reply_tokens: int = 32
    """Most tokens of a reply; one that has not ended by then is cut there."""
    temperature: float = 1.0
    """Temperature of the policy: of the sampling and of every log-probability."""
    slots: int = 128
    """Replies sampled at a time."""
    micro_batch: int = 16
    """Replies in memory at a time; it does not change what is learnt."""
    kl_coefficient: float = 0.05
    """Weight of the KL penalty."""
    samples: int = 8
    """Held-out prompts whose replies before and after are shown."""
    lora: LoraConfig | None = None
    """Train low-rank adapters instead of all weights. Policy and reference then share one set of weights."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(kind="adamw", learning_rate=2e-4, beta1=0.9, beta2=0.999, epsilon=1e-5)
    )
    """Which parameters move how fast."""
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(log_every=1))
    """How the training loop runs."""

    def __post_init__(self) -> None:
        at_least_one(self, "train_prompts", "heldout_prompts", "prompt_tokens", "reply_tokens", "slots", "micro_batch")
        not_negative(self, "kl_coefficient", "samples")
        above_zero(self, "temperature")


def usual_rate(parameters: int) -> float:
    """The learning rate of PPO and GRPO that is usual for so many parameters: on a straight line, in logarithms, through the
    3e-6 of 1 billion (Huang et al. 2024) and the 2e-4 that serves the quickstart's 5 million."""
    return float(3e-6 * (1e9 / max(parameters, 1)) ** 0.793)


@dataclass(frozen=True)
class RolloutConfig(AnsweringConfig):
    """Rollouts, and how often and how far the policy moves on each."""

    iterations: int = 10
    """Rollouts, if none is stopped early: the number of updates is iterations x epochs x minibatches."""
    rollout_prompts: int = 64
    """Prompts of a rollout."""
    watch_prompts: int = 64
    """With trainer.evaluate_every: most prompts, of the training part and not rolled out, on which the policy is measured then;
    also by the input `judge`, a reward model that it is not trained against, or else by `gold`, or else by its rules, as
    heldout_judge."""
    gold: tuple[RuleConfig, ...] = ()
    """Rules that say what is meant: their sum is gold_score of each rollout and, with trainer.evaluate_every, heldout_judge of
    `watch_prompts` (heldout_gold beside the input `judge`). Only measured, never trained on, so that a reward that rises while
    they fall is seen to be gamed. Prompts that a rule cannot judge are trained on all the same."""
    epochs: int = 1
    """Passes over each rollout, freshly shuffled each time."""
    minibatches: int = 2
    """Updates in one pass over a rollout."""
    kl_target: float | None = None
    """Nats a reply towards which the coefficient is steered (Ziegler et al. 2019: 6). None: it is fixed. 0 is refused: no
    policy could learn anything at no distance from the reference."""
    kl_horizon: float = 10_000.0
    """Replies over which the steering acts (Ziegler et al. 2019)."""
    missing_end: Literal["subtract", "replace", "none"] = "subtract"
    """What befalls the score of a reply that did not end: less `missing_end_value`, replaced by its negative, or nothing."""
    missing_end_value: float = 1.0
    """Size of that penalty, in standard deviations of a reward model's scores."""
    clip: float = 0.2
    """How far the probability ratio may move before it earns nothing more."""
    stop_kl: float = 0.1
    """The rest of a rollout is given up when an update meets a larger approximate KL (nats a token) between the policy
    and the one that sampled; 0 never does."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(kind="adamw", learning_rate=2e-4, beta1=0.9, beta2=0.999, epsilon=1e-5)
    )
    """Which parameters move how fast. Adam's epsilon is 1e-5 (Huang et al. 2024, detail 15); the rate falls linearly to 0. 2e-4
    is for the few million parameters of the quickstart: the larger the model the lower (`usual_rate`)."""

    def check_rollouts(self, method: str, usual_kl_coefficient: float) -> None:
        """Raise ConfigError for settings under which no rollout could be learnt from. method: its name, for the message."""
        at_least_one(self, "iterations", "rollout_prompts", "watch_prompts", "epochs", "minibatches")
        not_negative(self, "missing_end_value", "stop_kl")
        above_zero(self, "clip", "kl_horizon")
        check_kl_target(self.kl_target, self.kl_coefficient, usual_kl_coefficient)
        no_dropout(self, method)

    @property
    def steps(self) -> int:
        """Updates in all."""
        return self.iterations * self.epochs * self.minibatches

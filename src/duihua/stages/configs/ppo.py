"""Settings of the PPO stage. No torch here, so that help stays quick.

Where a default is a paper's it says so; the learning rate and the sizes fit a model of a few million parameters on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from duihua.data.source import SourceConfig
from duihua.errors import ConfigError
from duihua.nn.lora_config import LoraConfig
from duihua.stages.configs.kl_target import check_kl_target
from duihua.training.config import OptimizerConfig, TrainerConfig


@dataclass(frozen=True)
class PPOConfig:
    """How the policy is trained against the reward model by proximal policy optimisation."""

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
    iterations: int = 10
    """Rollouts, if none is stopped early: the number of updates is iterations x epochs x minibatches."""
    rollout_prompts: int = 64
    """Prompts of a rollout, one sampled reply each."""
    epochs: int = 4
    """Passes over each rollout, freshly shuffled each time."""
    minibatches: int = 2
    """Updates in one pass over a rollout."""
    micro_batch: int = 16
    """Replies in memory at a time; it does not change what is learnt."""
    temperature: float = 1.0
    """Temperature of the policy: of the sampling and of every log-probability."""
    top_k: int = 0
    """Refused unless 0: the sampler must draw from the very distribution whose log-probabilities are trained."""
    top_p: float = 1.0
    """Refused unless 1, for the same reason."""
    repetition_penalty: float = 1.0
    """Refused unless 1, for the same reason."""
    kl_coefficient: float = 0.05
    """Weight of the per-token KL penalty against the reference (Huang et al. 2024: 0.05)."""
    kl_target: float | None = None
    """Nats a reply towards which the coefficient is steered (Ziegler et al. 2019: 6). None: it is fixed. 0 is refused: no
    policy could learn anything at no distance from the reference."""
    kl_horizon: float = 10_000.0
    """Replies over which the steering acts (Ziegler et al. 2019)."""
    missing_end: Literal["subtract", "replace", "none"] = "subtract"
    """What befalls the score of a reply that did not end: less `missing_end_value`, replaced by its negative, or nothing."""
    missing_end_value: float = 1.0
    """Size of that penalty, in standard deviations of the reward."""
    whiten_rewards: bool = False
    """Bring the per-token rewards of a rollout to standard deviation 1, their mean unchanged."""
    gamma: float = 1.0
    """Discount of later rewards (Stiennon et al. 2020: 1)."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation."""
    clip: float = 0.2
    """How far the probability ratio may move before it earns nothing more."""
    value_clip: float = 0.2
    """How far a value may move from its old one before it earns nothing more."""
    value_coefficient: float = 0.1
    """Weight of the critic's loss."""
    critic: Literal["shared", "reward"] = "shared"
    """shared: a value head, at first zero, on the policy's own trunk; reward: a network of its own, at first the reward
    model."""
    stop_kl: float = 0.1
    """The rest of a rollout is given up when an update meets a larger approximate KL (nats a token) between the policy
    and the one that sampled; 0 never does."""
    slots: int = 64
    """Replies sampled at a time."""
    samples: int = 8
    """Held-out prompts whose replies before and after are shown."""
    lora: LoraConfig | None = None
    """Train low-rank adapters instead of all weights, in the policy and in a critic of its own. Policy and reference then
    share one set of weights, and critic and reward model another, so that two networks are in memory instead of four."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(kind="adamw", learning_rate=2e-4, beta1=0.9, beta2=0.999, epsilon=1e-5)
    )
    """Which parameters move how fast. Adam's epsilon is 1e-5 (Huang et al. 2024, detail 15); the rate falls linearly to 0."""
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(log_every=1))
    """How the training loop runs."""

    def __post_init__(self) -> None:
        plain = {"top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
        for name, value in plain.items():
            if getattr(self, name) != value:
                raise ConfigError(
                    f"replies of a rollout are drawn from the policy itself, found {getattr(self, name)}",
                    where=name,
                    remedy=f"Leave it at {value}: otherwise the recorded log-probabilities are not those of the sampling",
                )
        for name in (
            "train_prompts", "heldout_prompts", "prompt_tokens", "reply_tokens", "iterations", "rollout_prompts",
            "epochs", "minibatches", "micro_batch", "slots",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"must be at least 1, found {getattr(self, name)}", where=name)
        for name in ("kl_coefficient", "missing_end_value", "value_coefficient", "stop_kl", "samples"):
            if getattr(self, name) < 0:
                raise ConfigError(f"cannot be negative, found {getattr(self, name)}", where=name)
        for name in ("temperature", "clip", "value_clip", "kl_horizon"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"must be above 0, found {getattr(self, name)}", where=name)
        check_kl_target(self.kl_target, self.kl_coefficient, 0.05)
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"must be between 0 and 1, found {getattr(self, name)}", where=name)
        if self.lora is not None and self.lora.dropout:
            raise ConfigError(
                f"PPO compares two forwards of the same weights, found a dropout of {self.lora.dropout}",
                where="lora.dropout",
                remedy="Set it to 0",
            )
        if self.rollout_prompts % self.minibatches:
            raise ConfigError(
                f"{self.rollout_prompts} replies cannot be cut into {self.minibatches} equal minibatches",
                where="minibatches",
                remedy="Choose a divisor of rollout_prompts",
            )

    @property
    def steps(self) -> int:
        """Updates in all."""
        return self.iterations * self.epochs * self.minibatches

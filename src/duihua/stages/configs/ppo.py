"""Settings of the PPO stage. No torch here, so that help stays quick.

Where a default is a paper's it says so; the learning rate and the sizes fit a model of a few million parameters on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from duihua.errors import ConfigError
from duihua.nn.lora_config import LoraConfig
from duihua.stages.configs.answering import RolloutConfig
from duihua.stages.configs.checks import above_zero, not_negative, require_sources


@dataclass(frozen=True)
class PPOConfig(RolloutConfig):
    """How the policy is trained against the reward model by proximal policy optimisation."""

    rollout_prompts: int = 64
    """Prompts of a rollout, one sampled reply each."""
    epochs: int = 4
    """Passes over each rollout, freshly shuffled each time."""
    top_k: int = 0
    """Refused unless 0: the sampler must draw from the very distribution whose log-probabilities are trained."""
    top_p: float = 1.0
    """Refused unless 1, for the same reason."""
    repetition_penalty: float = 1.0
    """Refused unless 1, for the same reason."""
    kl_coefficient: float = 0.05
    """Weight of the per-token KL penalty against the reference (Huang et al. 2024: 0.05)."""
    whiten_rewards: bool = False
    """Bring the per-token rewards of a rollout to standard deviation 1, their mean unchanged."""
    gamma: float = 1.0
    """Discount of later rewards (Stiennon et al. 2020: 1)."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation."""
    value_clip: float = 0.2
    """How far a value may move from its old one before it earns nothing more."""
    value_coefficient: float = 0.1
    """Weight of the critic's loss."""
    critic: Literal["shared", "reward"] = "shared"
    """shared: a value head, at first zero, on the policy's own trunk; reward: a network of its own, at first the reward
    model."""
    lora: LoraConfig | None = None
    """Train low-rank adapters instead of all weights, in the policy and in a critic of its own. Policy and reference then
    share one set of weights, and critic and reward model another, so that two networks are in memory instead of four."""

    def __post_init__(self) -> None:
        require_sources(self)
        plain = {"top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
        for name, value in plain.items():
            if getattr(self, name) != value:
                raise ConfigError(
                    f"replies of a rollout are drawn from the policy itself, found {getattr(self, name)}",
                    where=name,
                    remedy=f"Leave it at {value}: otherwise the recorded log-probabilities are not those of the sampling",
                )
        super().__post_init__()
        self.check_rollouts("PPO", 0.05)
        not_negative(self, "value_coefficient")
        above_zero(self, "value_clip")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"must be between 0 and 1, found {getattr(self, name)}",
                    where=name,
                    remedy="Set a number from 0 to 1, or leave it out",
                )
        if self.rollout_prompts % self.minibatches:
            raise ConfigError(
                f"{self.rollout_prompts} replies cannot be cut into {self.minibatches} equal minibatches",
                where="minibatches",
                remedy="Choose a divisor of rollout_prompts",
            )

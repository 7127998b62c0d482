"""Settings of the rejection-sampling stage. No torch here, so that help stays quick."""

from __future__ import annotations

from dataclasses import dataclass, field

from duihua.errors import ConfigError
from duihua.stages.configs.answering import AnsweringConfig
from duihua.stages.configs.checks import above_zero, at_least_one, not_negative, require_sources
from duihua.stages.configs.verifiable import RuleConfig
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig


@dataclass(frozen=True)
class RejectionSamplingConfig(AnsweringConfig):
    """How the policy learns from the best of several replies of its own to each prompt."""

    rules: tuple[RuleConfig, ...] = ()
    """Rewards that are worked out, added up. Empty: the reward model of the input `reward`, which is not read otherwise."""
    candidates: int = 8
    """Replies sampled to each prompt, of which the best is learnt."""
    least_score: float | None = None
    """A best reply below this score is not learnt from; None: every best one is. With rules, the score of a right reply."""
    train_prompts: int = 512
    """Most training prompts."""
    heldout_prompts: int = 96
    """Most held-out prompts, on which the policy is compared before and after."""
    reply_tokens: int = 32
    """Most tokens of a reply; one that has not ended by then is no candidate."""
    temperature: float = 1.0
    """Temperature at which replies are sampled."""
    micro_batch: int = 16
    """Replies that are judged at a time."""
    kl_coefficient: float = 0.05
    """Weight of the KL in the totals that are shown beside the scores; nothing here is trained on it."""
    length: int = 0
    """Tokens in a row, into which several replies with their prompts are packed. 0: the context of the model."""
    batch_tokens: int = 2048
    """Tokens of an update, pads included: batch_tokens / length rows."""
    micro_batch_tokens: int = 2048
    """Tokens in memory at a time; it does not change what is learnt."""
    epochs: float = 2.0
    """Passes over the kept replies."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(kind="adamw", learning_rate=2e-4, beta1=0.9, beta2=0.95, epsilon=1e-8)
    )
    """Which parameters move how fast."""
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="linear", warmup_steps=5))
    """How the learning rate moves."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """How the training loop runs."""

    def __post_init__(self) -> None:
        require_sources(self)
        super().__post_init__()
        at_least_one(self, "batch_tokens", "micro_batch_tokens")
        not_negative(self, "length")
        above_zero(self, "epochs")
        if self.candidates < 2:
            raise ConfigError(
                f"the best of {self.candidates} is no choice", where="candidates", remedy="Choose 2 or more"
            )

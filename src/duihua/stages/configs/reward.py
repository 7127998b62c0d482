"""Settings of the reward stage. No torch here, so that help stays quick."""

from __future__ import annotations

from dataclasses import dataclass, field

from duihua.errors import ConfigError
from duihua.nn.lora_config import LoraConfig
from duihua.stages.configs.checks import at_least_one, not_negative
from duihua.stages.configs.fine_tuning import fine_tuning_optimizer
from duihua.stages.configs.pairs import PairsConfig
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig


@dataclass(frozen=True)
class RewardConfig(PairsConfig):
    """How the reward model is trained: a Bradley-Terry model of which of two replies is liked better."""

    off_topic_pairs: int = 200
    """Training pairs of a person's reply against the reply to another prompt."""
    heldout_off_topic_pairs: int = 120
    """Most off-topic pairs of held-out prompts, for the accuracy."""
    micro_batch_pairs: int = 4
    """Pairs in memory at a time; it does not change what is learnt."""
    margin: float = 0.0
    """Subtracted from the difference of the two rewards inside the sigmoid (Touvron et al. 2023, equation 2). 0: none."""
    centering: float = 0.0
    """Weight of (r_chosen + r_rejected)^2, which keeps rewards near zero (Eisenstein et al. 2023). 0: none."""
    normalisation_samples: int = 256
    """Replies of the reference policy over which the reward is brought to mean 0 and standard deviation 1."""
    verification_samples: int = 192
    """Other replies of the reference policy on which the normalisation is checked."""
    lora: LoraConfig | None = None
    """Train low-rank adapters beside the frozen model instead of all its weights; the score is always trained. None for all
    weights."""
    optimizer: OptimizerConfig = field(default_factory=fine_tuning_optimizer)
    """Which parameters move how fast; as in supervised fine-tuning, whose weights it continues."""
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="linear", warmup_steps=5))
    """How the learning rate moves."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """How the training loop runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(self, "micro_batch_pairs", "normalisation_samples")
        not_negative(self, "verification_samples", "margin", "centering")
        if self.normalisation_samples < 2:
            raise ConfigError(
                "a standard deviation needs at least 2 samples",
                where="normalisation_samples",
                remedy="Set 2 or more; some hundred are usual",
            )

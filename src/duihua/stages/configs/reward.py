"""Settings of the reward stage. No torch here, so that help stays quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from duihua.data.source import SourceConfig
from duihua.errors import ConfigError
from duihua.nn.lora_config import LoraConfig
from duihua.stages.configs.fine_tuning import fine_tuning_optimizer
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig


@dataclass(frozen=True)
class RewardConfig:
    """How the reward model is trained: a Bradley-Terry model of which of two replies is liked better."""

    preferences: tuple[SourceConfig, ...] = (
        SourceConfig(name="dpo-en", limit=150),
        SourceConfig(name="dpo-zh", limit=150),
    )
    """Sources of judged pairs (kind human)."""
    conversations: tuple[SourceConfig, ...] = (
        SourceConfig(name="chatterbot-en"),
        SourceConfig(name="chatterbot-zh"),
        SourceConfig(name="chitchat"),
        SourceConfig(name="alpaca-en"),
        SourceConfig(name="alpaca-zh"),
    )
    """Sources of prompts with a person's reply, for sampled and off-topic pairs; drawn in proportion to their weights."""
    turns: int = 3
    """Most replies of one conversation that become pairs; the intervals take them as independent."""
    sampled_pairs: int = 640
    """Training pairs of a person's reply against one that the SFT policy sampled."""
    off_topic_pairs: int = 200
    """Training pairs of a person's reply against the reply to another prompt."""
    heldout_sampled_pairs: int = 240
    """Most sampled pairs of held-out prompts, for the accuracy."""
    heldout_off_topic_pairs: int = 120
    """Most off-topic pairs of held-out prompts, for the accuracy."""
    length: int = 128
    """Most tokens of prompt and reply together; never more than the model's context, which 0 stands for."""
    long_pairs: Literal["cut", "leave_out"] = "cut"
    """Judged pairs longer than that. cut: the prompt loses its beginning (it keeps at most half the length), then each
    reply its end; leave_out: not used. Either way they are counted and reported."""
    reply_tokens: int = 48
    """Most tokens of a sampled reply. Exchanges whose human reply is longer are left out of sampled pairs and counted,
    so that being cut does not tell the two apart."""
    sampled_candidates: int = 3
    """Replies sampled for each sampled pair; the one nearest in length to the person's is taken, so that length does not
    give it away."""
    temperature: float = 1.0
    """Temperature at which replies are sampled."""
    slots: int = 64
    """Replies sampled at a time."""
    epochs: int = 1
    """Passes over the training pairs. More than one overfits soon (Stiennon et al. 2020, appendix B)."""
    batch_pairs: int = 16
    """Pairs for each update."""
    micro_batch_pairs: int = 4
    """Pairs in memory at a time; it does not change what is learnt."""
    margin: float = 0.0
    """Subtracted from the difference of the two rewards inside the sigmoid (Touvron et al. 2023, equation 2). 0: none."""
    centering: float = 0.0
    """Weight of (r_chosen + r_rejected)^2, which keeps rewards near zero (Eisenstein et al. 2023). 0: none."""
    normalisation_samples: int = 192
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
        positive = (
            "reply_tokens",
            "sampled_candidates",
            "slots",
            "epochs",
            "batch_pairs",
            "micro_batch_pairs",
            "normalisation_samples",
        )
        for name in positive:
            if getattr(self, name) < 1:
                raise ConfigError(f"must be at least 1, found {getattr(self, name)}", where=name)
        counts = ("sampled_pairs", "off_topic_pairs", "heldout_sampled_pairs", "heldout_off_topic_pairs", "length")
        for name in (*counts, "verification_samples", "margin", "centering"):
            if getattr(self, name) < 0:
                raise ConfigError(f"cannot be negative, found {getattr(self, name)}", where=name)
        if self.normalisation_samples < 2:
            raise ConfigError("a standard deviation needs at least 2 samples", where="normalisation_samples")
        if self.temperature <= 0:
            raise ConfigError(
                f"must be above 0, found {self.temperature}",
                where="temperature",
                remedy="Replies are sampled; a greedy one would be the same each time",
            )
        if not self.preferences and not self.conversations:
            raise ConfigError("there is no source to make pairs from", where="preferences", remedy="Name at least one")

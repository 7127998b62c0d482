"""Settings of supervised fine-tuning. No torch here, so that help stays quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from duihua.data.source import SourceConfig
from duihua.errors import ConfigError
from duihua.nn.lora_config import LoraConfig
from duihua.stages.configs.fine_tuning import fine_tuning_optimizer
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig


@dataclass(frozen=True)
class SFTConfig:
    """How a base model learns to answer: next-token prediction on what the assistant says in conversations."""

    sources: tuple[SourceConfig, ...] = (
        SourceConfig(name="chatterbot-en", weight=3.0),
        SourceConfig(name="chatterbot-zh", weight=6.0),
        SourceConfig(name="identity", weight=6.0),
        SourceConfig(name="alpaca-en", limit=200),
        SourceConfig(name="alpaca-zh", limit=200),
        SourceConfig(name="chitchat", limit=150),
    )
    """Conversations to learn from. A source's weight is how many times an epoch holds it: 2.0 twice, 0.5 half of it."""
    length: int = 0
    """Tokens in a row, into which several conversations are packed. 0: the context of the model."""
    batch_tokens: int = 2048
    """Tokens of an update, pads included: batch_tokens / length rows."""
    micro_batch_tokens: int = 2048
    """Tokens in memory at a time; it does not change what is learnt."""
    steps: int = 170
    """Updates."""
    long_conversations: Literal["truncate", "split"] = "truncate"
    """What becomes of a conversation longer than a row. truncate: whole turns at its end are cut off; split: they become a
    row of their own. Both are counted."""
    heldout_conversations: int = 240
    """Most held-out conversations on which loss and accuracy are measured before and after; 0 for all."""
    evaluations: int = 4
    """Evaluations during training, evenly spread: the loss of every source on a few training and a few held-out conversations.
    Fewer where they would take more than a tenth of the training's work; 0 for none. trainer.evaluate_every goes before it,
    and then all held-out conversations are measured each time."""
    compared_conversations: int = 12
    """Training conversations of each source whose loss is measured beside that of its held-out ones, of which such an
    evaluation takes no more either; 0 for none."""
    memorisation_prompts: int = 12
    """Prompts of each source, of its training part and of its held-out part, that are answered at the end, to see whether the
    replies are learnt by heart; 0 for none."""
    samples: int = 4
    """Held-out prompts whose replies before and after are kept in the result."""
    reply_tokens: int = 48
    """Most tokens of such a reply."""
    offered_prompts: int = 6
    """Openings out of the training conversations that the bundle names, for its page, its terminal and its card to offer. 0:
    none, where not even a line of the data may be seen."""
    lora: LoraConfig | None = None
    """Train low-rank adapters beside the frozen model instead of all its weights; None for all weights."""
    optimizer: OptimizerConfig = field(default_factory=fine_tuning_optimizer)
    """Which parameters move how fast."""
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="linear", warmup_steps=5))
    """How the learning rate moves."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """How the training loop runs."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("there is no source of conversations", where="sources", remedy="Name at least one")
        for name in ("batch_tokens", "micro_batch_tokens", "steps", "reply_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"must be at least 1, found {getattr(self, name)}",
                    where=name,
                    remedy="Set it to 1 or more, or leave it out",
                )
        for name in (
            "length", "heldout_conversations", "evaluations", "compared_conversations", "memorisation_prompts", "samples",
            "offered_prompts",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"cannot be negative, found {getattr(self, name)}",
                    where=name,
                    remedy="Set 0 or more, or leave it out",
                )
        for number, source in enumerate(self.sources):
            if source.weight <= 0:
                raise ConfigError(
                    f"must be above 0, found {source.weight}",
                    where=f"sources[{number}].weight",
                    remedy="Remove the source",
                )

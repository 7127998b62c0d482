"""Settings of the classifier stage. No torch here, so that help stays quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from duihua.data.source import SourceConfig
from duihua.errors import ConfigError
from duihua.stages.configs.pretrain import ShapeConfig
from duihua.training.config import OptimizerConfig, TrainerConfig


@dataclass(frozen=True)
class ClassifyConfig:
    """How a base model is fine-tuned to classify, with the language model's own loss beside (GPT-1, section 3.2).

    Figures whose origin is not given are those of section 4.1 of the paper.
    """

    task: Literal["classification", "entailment", "similarity", "multiple_choice"] = "classification"
    """What an example is. classification: a text; entailment: two texts in order; similarity: two texts in either order;
    multiple_choice: a context with options."""
    source: SourceConfig = field(default_factory=lambda: SourceConfig(name="reviews-zh"))
    """Labelled examples (kind labelled), or choices. Its `limit` trains on so many and tests on all held-out ones."""
    auxiliary_weight: float = 0.5
    """Lambda of equation 5: weight of the language model's loss on the task's texts, L3 = L2 + lambda L1. 0 turns it off."""
    epochs: int = 3
    """Passes over the training examples."""
    batch: int = 32
    """Examples for each update."""
    micro_batch: int = 32
    """Examples in memory at a time; it does not change what is learnt."""
    length: int = 0
    """Most tokens of a sequence, task tokens included; longer ones are cut, longest part first. 0: the model's context."""
    classifier_dropout: float = 0.1
    """Share of the vector that the last layer reads that is zeroed in training."""
    pooling: Literal["extract", "mean"] = "extract"
    """Which vector that is. extract: the extract token's, as in the paper; mean: the average over the sequence, which is ours
    and suits a small base with few labels (docs/log.md)."""
    warmup_share: float = 0.002
    """Share of all updates over which the learning rate rises; then it falls to 0 along a line."""
    seeds: int = 1
    """How many times the training is repeated, each with another seed, for an interval over seeds. The classifier that is
    kept is the first one's."""
    from_scratch: bool = False
    """Train from random weights in the shape of the input policy: what pre-training gains is the difference."""
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    """The decoder where no policy is given, only a tokenizer; its weights are random."""
    context: int = 256
    """Context of that decoder."""
    positive_class: str = ""
    """Of two classes, the one that F1 is about. Empty: the last in the order of their names."""
    test_limit: int = 0
    """Most held-out examples that are measured, drawn by a hash; 0 for all."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            kind="adamw", learning_rate=6.25e-5, beta1=0.9, beta2=0.999, weight_decay=0.01
        )
    )
    """Which parameters move how fast. The paper's rate is for 117 million parameters; small models need a higher one."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """How the training loop runs."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "micro_batch", "seeds", "context"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"must be at least 1, found {getattr(self, name)}",
                    where=name,
                    remedy="Set it to 1 or more, or leave it out",
                )
        for name in ("length", "test_limit", "auxiliary_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"cannot be negative, found {getattr(self, name)}",
                    where=name,
                    remedy="Set 0 or more, or leave it out",
                )
        for name in ("classifier_dropout", "warmup_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"must be from 0 to below 1, found {getattr(self, name)}",
                    where=name,
                    remedy="Such as 0.1, or 0 for none",
                )
        if self.source.weight != 1.0:
            raise ConfigError(
                f"there is one source, so its weight means nothing, found {self.source.weight}",
                where="source.weight",
                remedy="Leave it out",
            )

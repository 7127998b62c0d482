"""Settings of pre-training. No torch here, so that help stays quick."""

from __future__ import annotations

from dataclasses import dataclass, field

from duihua.data.source import SourceConfig
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig


@dataclass(frozen=True)
class ShapeConfig:
    """The decoder's shape; the vocabulary size comes from the tokenizer, the context from `length`."""

    width: int = 256
    """Size of the vector that stands for a token in every layer."""
    layers: int = 4
    """Number of blocks."""
    heads: int = 4
    """Query heads of each attention layer."""
    key_value_heads: int = 2
    """Key and value heads; each serves heads / key_value_heads query heads."""
    head_width: int = 64
    """Size of one head."""
    feed_forward_width: int = 704
    """Hidden units of the gated feed-forward layer."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    tied_embeddings: bool = False
    """Whether the output layer uses the embedding's own matrix."""


@dataclass(frozen=True)
class PretrainConfig:
    """Next-token prediction on running text, from random weights."""

    sources: tuple[SourceConfig, ...] = (SourceConfig(name="race-text"),)
    """Where the text comes from. A weight other than 1 repeats or thins a source's documents."""
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    """The decoder."""
    length: int = 256
    """Tokens in a row, and the context of the model."""
    rows: int = 8
    """Rows in a micro-batch."""
    micro_batches: int = 1
    """Micro-batches in a step; rows x micro_batches x length tokens make one update."""
    steps: int = 600
    """Updates."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(embedding_learning_rate=0.2, head_learning_rate=0.004)
    )
    """Optimizer and learning rates."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Learning-rate schedule."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """The training loop."""
    expected_bits_per_byte: tuple[float, float] | None = None
    """Range that held-out bits per byte should fall into with these settings; shown in the report."""

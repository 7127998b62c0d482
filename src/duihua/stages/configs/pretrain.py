"""Settings of pre-training. No torch here, so that help stays quick."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from duihua.config.mapping import suggestion
from duihua.data.source import SourceConfig
from duihua.errors import ConfigError
from duihua.models.config import (
    Activation,
    DecoderConfig,
    Initialisation,
    Norm,
    NormPlace,
    Positions,
    QueryKeyNorm,
    RopeScaling,
)
from duihua.models.presets import PRESETS, preset
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig


@dataclass(frozen=True)
class ShapeConfig:
    """The decoder's shape: a preset, with single fields put over it. Whatever is not given here is the preset's; the
    vocabulary size comes from the tokenizer, the context from `length`. What each field means, and where it comes from, is
    said in models/config.py."""

    preset: str = "qwen3"
    """Published shape to start from: qwen3, llama and fast are small; gpt1, gpt2, gpt2-medium, llama-3.2-1b, qwen3-0.6b and
    others have their published size."""
    width: int | None = None
    """Size of the vector that stands for a token in every layer (qwen3: 256)."""
    layers: int | None = None
    """Number of blocks (qwen3: 4)."""
    heads: int | None = None
    """Query heads of each attention layer (qwen3: 4)."""
    key_value_heads: int | None = None
    """Key and value heads; each serves heads / key_value_heads query heads (qwen3: 2)."""
    head_width: int | None = None
    """Size of one head (qwen3: 64)."""
    feed_forward_width: int | None = None
    """Hidden units of the feed-forward layer (qwen3: 704)."""
    positions: Positions | None = None
    """How places are told apart: rotary, learned, sinusoidal or none (qwen3: rotary)."""
    rope_theta: float | None = None
    """Base of the rotary frequencies (qwen3: 10000)."""
    rope_scaling: RopeScaling | None = None
    """Rotary positions stretched beyond the context of the training (qwen3: none)."""
    norm: Norm | None = None
    """rms or layer (qwen3: rms)."""
    norm_place: NormPlace | None = None
    """Norms before each sub-layer (pre) or behind the addition (post); qwen3: pre."""
    final_norm: bool | None = None
    """Whether a norm stands before the head (qwen3: yes)."""
    norm_epsilon: float | None = None
    """Added to the mean square or the variance in every norm (qwen3: 1e-6)."""
    query_key_norm: QueryKeyNorm | None = None
    """Norm of queries and keys: none, weighted or plain (qwen3: weighted)."""
    activation: Activation | None = None
    """Of the feed-forward layer: silu, gelu, gelu_tanh, relu or relu_squared (qwen3: silu)."""
    gated: bool | None = None
    """Whether the hidden units are multiplied by a second projection (qwen3: yes)."""
    attention_bias: bool | None = None
    """Biases in the attention's projections (qwen3: no)."""
    feed_forward_bias: bool | None = None
    """Biases in the feed-forward projections (qwen3: no)."""
    tied_embeddings: bool | None = None
    """Whether the output layer uses the embedding's own matrix (qwen3: no)."""
    embedding_dropout: float | None = None
    """Share of the embedded input that is zeroed in training (qwen3: 0)."""
    attention_dropout: float | None = None
    """Share of the attention weights that is zeroed in training (qwen3: 0)."""
    residual_dropout: float | None = None
    """Share of each sub-layer's output that is zeroed in training (qwen3: 0)."""
    value_embeddings: bool | None = None
    """A learnt vector for each token in every second layer's values (qwen3: no; fast: yes)."""
    residual_scalars: bool | None = None
    """Each block's input mixed with the embedded token (qwen3: no; fast: yes)."""
    logit_soft_cap: float | None = None
    """Bound of the logits, 0 for none (qwen3: 0; fast: 15)."""
    initialisation: Initialisation | None = None
    """First weights: zero_output, normal or normal_scaled (qwen3: zero_output)."""
    initialiser_range: float | None = None
    """Standard deviation of normal and normal_scaled (qwen3: 0.02)."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(
                f"unknown preset {self.preset!r}", where="preset", remedy=suggestion(self.preset, list(PRESETS))
            )
        try:
            self.decoder(1, 1)  # so that an impossible shape is named before anything runs
        except ConfigError as error:
            raise ConfigError(error.problem, where=error.where.removeprefix("decoder."), remedy=error.remedy) from error

    def decoder(self, vocabulary_size: int, context: int) -> DecoderConfig:
        """The whole config. ConfigError where the fields do not fit together."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "preset"}
        given = {name: value for name, value in given.items() if value is not None}
        return preset(self.preset, vocabulary_size=vocabulary_size, context=context, **given)


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

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("there is no source of text", where="sources", remedy="Name at least one")
        for name in ("length", "rows", "micro_batches", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"must be at least 1, found {getattr(self, name)}", where=name)

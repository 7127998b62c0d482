"""Settings of pre-training. No torch here, so that help stays quick."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

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
from duihua.stages.configs.dial import DERIVED, HORIZONS, RATES, check_complete, check_dial
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
        with _as_field():
            self.decoder(1, 1)  # so that an impossible shape is named before anything runs

    def decoder(self, vocabulary_size: int, context: int) -> DecoderConfig:
        """The whole config. ConfigError where the fields do not fit together."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "preset"}
        given = {name: value for name, value in given.items() if value is not None}
        return preset(self.preset, vocabulary_size=vocabulary_size, context=context, **given)

    def check_bigram_start(self) -> None:
        """ConfigError where the shape does not go with `start: bigrams`."""
        with _as_field("shape."):
            self.decoder(1, 1).check_bigram_start()

    def starts_from_bigrams(self) -> bool:
        """Whether the shape goes with `start: bigrams`."""
        try:
            self.check_bigram_start()
        except ConfigError:
            return False
        return True


@contextmanager
def _as_field(prefix: str = "") -> Iterator[None]:
    """An error of the decoder's config as one of a field here."""
    try:
        yield
    except ConfigError as error:
        where = prefix + error.where.removeprefix("decoder.")
        raise ConfigError(error.problem, where=where, remedy=error.remedy) from error


@dataclass(frozen=True)
class PretrainConfig:
    """Next-token prediction on running text, from random weights."""

    sources: tuple[SourceConfig, ...] = (SourceConfig(name="race-text"),)
    """Where the text comes from. A weight other than 1 repeats or thins a source's documents."""
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    """The decoder."""
    start: Literal["random", "bigrams"] = "random"
    """First weights of embedding and head. bigrams: from how often each token follows each other in the text, counted in
    seconds; what a short training would spend its first third on (models/bigram_start.py). Needs a head of its own. The dial
    sets it wherever the shape allows it."""
    bigram_smoothing: float = 300.0
    """With start bigrams: how many more tokens with usual followers each token is counted with."""
    length: int = 256
    """Tokens in a row, and the context of the model."""
    rows: int = 8
    """Rows in a micro-batch."""
    micro_batches: int = 1
    """Micro-batches in a step; rows x micro_batches x length tokens make one update."""
    steps: int = 600
    """Updates."""
    mask_documents: bool = False
    """Whether a token looks at its own document only, and not at others that stand before it in its row. A document that goes
    on from the row before begins anew at the row's start. Positions are counted from each document's own beginning, as in
    fine-tuning."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(embedding_learning_rate=0.2, head_learning_rate=0.004)
    )
    """Optimizer and learning rates."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Learning-rate schedule."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """The training loop."""
    heldout_documents: int = 32
    """Held-out documents that an evaluation during training reads (trainer.evaluate_every); at the end all are read."""
    expected_bits_per_byte: tuple[float, float] | None = None
    """Range that held-out bits per byte should fall into with these settings; shown in the report."""
    size: int | Literal["auto"] | None = None
    """The dial (docs/training/dial.md): number of layers, 1 to 40, from which with minutes, tokens or budget width, heads,
    feed-forward, batch, learning rates, warm-up and steps follow where they are not stated; auto: the size that ends best
    within minutes or budget."""
    minutes: float | None = None
    """The dial: how long this stage may take on this machine, whose speed is measured first. Alone: with size auto."""
    tokens: int | float | str | None = None
    """The dial: how many tokens to train on, such as 10M."""
    budget: float | str | None = None
    """The dial: how many operations to spend, such as 1e15. Alone: with size auto."""
    keep: tuple[str, ...] = ()
    """What the dial must leave as it stands though it equals the default, such as rows. What a recipe, --set or a flag states
    is kept without being named here."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("there is no source of text", where="sources", remedy="Name at least one")
        for name in ("length", "rows", "micro_batches", "steps", "heldout_documents"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"must be at least 1, found {getattr(self, name)}",
                    where=name,
                    remedy="Set it to 1 or more, or leave it out",
                )
        if self.bigram_smoothing <= 0:
            raise ConfigError(
                f"must be above 0, found {self.bigram_smoothing:g}", where="bigram_smoothing", remedy="Such as 300"
            )
        if self.start == "bigrams":
            self.shape.check_bigram_start()
        if self.keep or self.dialled:
            check_dial(self, self.kept() if self.dialled else ())

    @property
    def dialled(self) -> bool:
        """Whether the dial sets anything."""
        return self.size is not None or any(getattr(self, name) is not None for name in HORIZONS)

    def kept(self) -> list[str]:
        """What the dial would set and must not, because it was stated."""
        plain = PretrainConfig()
        return [name for name in DERIVED if name in self.keep or _at(self, name) != _at(plain, name)]

    def stating(self, names: Iterable[str]) -> PretrainConfig:
        """The same, knowing all settings that were written down; they stay as they are, and no others. ConfigError where that
        contradicts the dial, or where the dial is told only half."""
        if not self.dialled:
            return self
        stated = set(names)
        plain = PretrainConfig()
        # A mapping with one rate has the others from OptimizerConfig, whose defaults are not those of pre-training.
        others = {name: getattr(plain.optimizer, name) for name in RATES if f"optimizer.{name}" not in stated}
        alike = [name for name in DERIVED if name in stated and _at(self, name) == _at(plain, name)]
        keep = tuple(name for name in DERIVED if name in alike or name in self.keep)
        found = dataclasses.replace(self, keep=keep, optimizer=dataclasses.replace(self.optimizer, **others))
        check_complete(found, found.kept())
        return found


def _at(config: PretrainConfig, name: str) -> Any:
    """The setting of a dotted name."""
    found: Any = config
    for part in name.split("."):
        found = getattr(found, part)
    return found

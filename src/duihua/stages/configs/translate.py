"""Settings of the translator stage. No torch here, so that help stays quick."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from duihua.data.source import SourceConfig
from duihua.engine.beam_settings import BeamSettings
from duihua.errors import ConfigError
from duihua.models.recurrent_translator_config import RecurrentTranslatorConfig
from duihua.models.transformer_config import TransformerConfig
from duihua.stages.configs.tokenizer import SMALLEST_VOCABULARY
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig


@dataclass(frozen=True)
class TranslateConfig:
    """A translator from one language to another, from random weights (Vaswani et al. 2017; Bahdanau et al. 2015)."""

    sources: tuple[SourceConfig, ...] = (SourceConfig(name="multi30k-fr-en"),)
    """Parallel texts. A weight other than 1 repeats or thins a source's training pairs; all are tested on together."""
    from_language: str = "fr"
    """Language that is read. The sources' pairs are turned round where they stand the other way."""
    to_language: str = "en"
    """Language that is written."""
    both_directions: bool = False
    """One model for both: every pair is learnt both ways, and a tag before the source says which language is wanted."""
    network: Literal["transformer", "recurrent"] = "transformer"
    """transformer: encoder and decoder of attention; recurrent: of RNN, LSTM or GRU cells, with or without attention."""
    transformer: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(
            width=256,
            encoder_layers=3,
            decoder_layers=3,
            heads=4,
            feed_forward_width=1024,
            most_tokens=256,
            norm_place="pre",
            dropout=0.2,
        )
    )
    """Shape, where network is transformer. The vocabulary's size and the control tokens come from the tokenizer."""
    recurrent: RecurrentTranslatorConfig = field(default_factory=lambda: RecurrentTranslatorConfig(most_tokens=256))
    """Shape, where network is recurrent."""
    vocabulary_size: int = 8000
    """Ids of the byte-level BPE that is learnt from the training pairs of both languages together."""
    longest: int = 128
    """Training pairs with more tokens on either side are left out and counted."""
    label_smoothing: float = 0.1
    """Share of each target's probability that is spread over the vocabulary (Szegedy et al. 2016, section 7; Vaswani et al.
    2017, section 5.4). It costs perplexity and gains BLEU."""
    epochs: int = 20
    """Passes over the training pairs."""
    batch_tokens: int = 4096
    """Most tokens of a micro-batch: source and target, padding included."""
    micro_batches: int = 1
    """Micro-batches for each update."""
    validation_pairs: int = 200
    """Pairs of the validation part that are translated greedily at each evaluation, for its BLEU; the loss is of all of
    them."""
    average: int = 5
    """Snapshots, one at each evaluation, of which the last so many are averaged (Vaswani et al. 2017, section 6.1)."""
    keep: Literal["averaged", "best", "last"] = "averaged"
    """Weights that become the model: the average, the snapshot of the best validation BLEU (which needs a source with a
    validation part), or those of the last step."""
    search: BeamSettings = field(default_factory=lambda: BeamSettings(stopping="estimate"))
    """How the test part is translated. stopping is estimate here: full ends as soon as `beam` hypotheses have, and where a
    model is sure of itself those are short wrong ones that ended before the right one could."""
    test_limit: int = 0
    """At most this many sentences of the test part are translated, the first ones; 0 means all."""
    samples: tuple[str, ...] = ()
    """Sentences to be translated at the end, beside the first ones of the test part."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(kind="adam", learning_rate=1e-3, beta1=0.9, beta2=0.98, epsilon=1e-9)
    )
    """Adam as in Vaswani et al. 2017, section 5.3. learning_rate is the highest one; theirs is 1 / sqrt(width *
    warmup_steps)."""
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="noam", warmup_steps=800))
    """The paper's: a warm-up, then 1/sqrt(step)."""
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(evaluate_every=200, checkpoint_seconds=60.0))
    """The training loop. evaluate_every also says how often a snapshot is taken; 0 for at the end alone."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("there is no source of pairs", where="sources", remedy="Name at least one")
        for name in ("from_language", "to_language"):
            if not re.fullmatch(r"[a-z]{2,3}", getattr(self, name)):
                raise ConfigError(
                    f"{getattr(self, name)!r} is not a language", where=name, remedy="Write it as fr, en, de or zh"
                )
        if self.from_language == self.to_language:
            raise ConfigError("a translator needs two languages", where="to_language", remedy="Name another one")
        if self.vocabulary_size < SMALLEST_VOCABULARY:
            raise ConfigError(
                f"a vocabulary of {self.vocabulary_size} cannot hold the 256 bytes and 4 control tokens",
                where="vocabulary_size",
                remedy=f"Choose at least {SMALLEST_VOCABULARY}",
            )
        for name in ("longest", "epochs", "batch_tokens", "micro_batches", "validation_pairs", "average"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"must be at least 1, found {getattr(self, name)}",
                    where=name,
                    remedy="Set it to 1 or more, or leave it out",
                )
        if self.test_limit < 0:
            raise ConfigError(
                f"cannot be negative, found {self.test_limit}",
                where="test_limit",
                remedy="Set 0 to translate all of the test",
            )
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"must be from 0 to below 1, found {self.label_smoothing}",
                where="label_smoothing",
                remedy="0.1 is usual, 0 smooths nothing",
            )
        if self.longest > self.shape.most_tokens:
            raise ConfigError(
                f"pairs of {self.longest} tokens do not fit into the network's {self.shape.most_tokens}",
                where="longest",
                remedy=f"Set {self.network}.most_tokens to {self.longest} or more",
            )

    @property
    def shape(self) -> TransformerConfig | RecurrentTranslatorConfig:
        """The settings of the chosen network."""
        return self.transformer if self.network == "transformer" else self.recurrent

    @property
    def directions(self) -> tuple[tuple[str, str], ...]:
        """(read, written), one or both."""
        forward = (self.from_language, self.to_language)
        return (forward, forward[::-1]) if self.both_directions else (forward,)

"""Settings of the recurrent stage. No torch here, so that help stays quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from duihua.data.source import SourceConfig
from duihua.errors import ConfigError
from duihua.models.recurrent_config import RecurrentConfig
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig


def _optimizer() -> OptimizerConfig:
    return OptimizerConfig(kind="adamw", learning_rate=4e-3, beta1=0.9, beta2=0.999, weight_decay=0.0)


@dataclass(frozen=True)
class RecurrentTrainingConfig:
    """Truncated back-propagation through time: one long text, the state handed on from window to window."""

    corpus: str = "wiki-words"
    """wiki-words: 10,000 words of English made of the starter data; or a folder of your own with ptb.train.txt, ptb.valid.txt
    and ptb.test.txt. Not used where there are `sources`."""
    sources: tuple[SourceConfig, ...] = ()
    """Running text instead of `corpus`, cut by the vocabulary of the input (characters, words or byte pairs). Of the held-out
    documents every second one is for validation, the others for the test."""
    types: int = 0
    """Most frequent types of `corpus` that are kept, <unk> and the end of a sentence included; 0 for all. Fewer make a quick
    experiment, whose perplexities do not compare with others."""
    shape: RecurrentConfig = field(
        default_factory=lambda: RecurrentConfig(width=200, layers=1, initial_range=0.3, output_dropout=0.3)
    )
    """The network; vocabulary_size and end_id follow from the vocabulary."""
    rows: int = 20
    """Places of the text that are read side by side."""
    length: int = 35
    """Tokens of a window: how far back a gradient reaches (Zaremba et al. 2014: 35; Merity et al. 2018: 70)."""
    epochs: float = 8.0
    """Passes over the training text; a part of one is allowed."""
    looks_an_epoch: int = 1
    """Looks at the validation text in each pass. The weights of the best look are kept, and with the schedule `plateau` the
    rate falls after `schedule.patience` looks without a new best (not by the training loss, as in other stages)."""
    averaging_patience: int = 0
    """Begin to average the weights when a look is worse than the best one of more than so many looks ago (NT-ASGD, Merity et
    al. 2018, algorithm 1, which has 5 and sgd without momentum); 0 for never."""
    samples: int = 3
    """Texts that the trained model writes, for the result."""
    sample_tokens: int = 60
    """Tokens of each."""
    optimizer: OptimizerConfig = field(default_factory=_optimizer)
    """Optimizer and learning rate. Zaremba et al. 2014 and Merity et al. 2018 use plain sgd with large rates (1 to 30)."""
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="linear", warmup_steps=20))
    """Learning-rate schedule."""
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(clip_norm=0.5, log_every=50))
    """The training loop; its evaluate_every is set by looks_an_epoch. Clipping is what keeps an RNN from exploding."""

    def data_files(self) -> tuple[Path, ...]:
        """The files of a corpus of one's own; that of a known corpus is told by its name."""
        folder = Path(self.corpus).expanduser()
        return () if self.sources else tuple(sorted(folder.glob("ptb.*.txt")))

    def __post_init__(self) -> None:
        for name in ("rows", "length", "looks_an_epoch"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"must be at least 1, found {getattr(self, name)}",
                    where=name,
                    remedy="Set it to 1 or more, or leave it out",
                )
        for name in ("types", "averaging_patience", "samples", "sample_tokens"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"cannot be negative, found {getattr(self, name)}",
                    where=name,
                    remedy="Set 0 for none of it, or leave it out",
                )
        if not 0 < self.epochs < float("inf"):
            raise ConfigError(
                f"must be above 0, found {self.epochs}",
                where="epochs",
                remedy="Set how often the text is read, such as 8",
            )
        if not self.corpus and not self.sources:
            raise ConfigError("there is no text", where="corpus", remedy="Name a corpus, or sources")

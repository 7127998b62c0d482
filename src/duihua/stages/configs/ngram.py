"""Settings of the n-gram stage. No torch here, so that help stays quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from duihua.data.source import SourceConfig
from duihua.errors import ConfigError


@dataclass(frozen=True)
class NGramConfig:
    """A language model of counts: how often each few tokens followed each other (Kneser and Ney 1995)."""

    sources: tuple[SourceConfig, ...] = (SourceConfig(name="race-text"),)
    """Where the text comes from. All of the training part of each is counted once."""
    order: int = 3
    """Tokens that are looked at together: 1 unigram, 2 bigram, 3 trigram and so on."""
    smoothing: Literal["kneser-ney", "absolute", "none"] = "kneser-ney"
    """Below the highest order, kneser-ney counts how many different tokens one followed, absolute how often it occurred.
    none: relative frequencies, of order 1 alone."""
    discounting: Literal["modified", "fixed"] = "modified"
    """What is taken from counts for what was not seen: modified, three discounts for counts of 1, 2 and more (Chen and
    Goodman 1999); fixed, one for all."""
    discount: float = 0.0
    """One discount for all counts instead of an estimate; 0 estimates it."""
    vocabulary: Literal["", "tokenizer", "words", "characters"] = ""
    """What is counted. Empty: the tokens of the input tokenizer where there is one, else words."""
    segmentation: Literal["marks", "spaces", "jieba"] = "marks"
    """How words are found: marks, letters and punctuation apart; spaces, for prepared text; jieba, for Chinese."""
    lowercase: bool = False
    """Whether words are counted without regard to case."""
    vocabulary_size: int = 10_000
    """Ids of words or characters, the most frequent ones; 0 for all that occur."""
    lower_orders: bool = True
    """Measure the models of every lower order too: what each token of context gains."""
    samples: int = 4
    """Texts that are drawn from the model to be looked at."""
    sample_tokens: int = 50
    """Most tokens of each."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("there is no source of text", where="sources", remedy="Name at least one")
        if self.order < 1:
            raise ConfigError(
                f"must be at least 1, found {self.order}", where="order", remedy="Set it to 1 or more, or leave it out"
            )
        if self.smoothing == "none" and self.order > 1:
            raise ConfigError(
                "without smoothing a context that was never met has no probabilities",
                where="smoothing",
                remedy="Choose order 1, or kneser-ney",
            )
        if not 0 <= self.discount < 1:
            raise ConfigError(
                f"must be from 0 to below 1, found {self.discount}",
                where="discount",
                remedy="0 estimates it",
            )
        if self.vocabulary_size and self.vocabulary_size < 3:
            raise ConfigError(
                f"{self.vocabulary_size} ids have no room beside the two control ids",
                where="vocabulary_size",
                remedy="Choose at least 3, or 0 for all",
            )
        for name in ("samples", "sample_tokens"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"cannot be negative, found {getattr(self, name)}",
                    where=name,
                    remedy="Set 0 or more, or leave it out",
                )
        for number, source in enumerate(self.sources):
            if source.weight != 1.0:
                raise ConfigError(
                    f"every text is counted once, so its weight means nothing, found {source.weight}",
                    where=f"sources[{number}].weight",
                    remedy="Leave it out",
                )

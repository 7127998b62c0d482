"""Settings of the bag-of-words stage. No torch here, so that help stays quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from duihua.data.source import SourceConfig
from duihua.errors import ConfigError


@dataclass(frozen=True)
class BagOfWordsConfig:
    """A classifier that counts words and forgets their order: what every larger one must beat."""

    source: SourceConfig = field(default_factory=lambda: SourceConfig(name="reviews-zh"))
    """Labelled texts (kind labelled), one text each."""
    segmentation: Literal["", "marks", "spaces", "jieba"] = ""
    """How words are found. Empty: jieba for a Chinese source, else marks (letters and punctuation apart)."""
    lowercase: bool = True
    """Whether words are counted without regard to case."""
    vocabulary_size: int = 50_000
    """Words that are counted, the most frequent ones of the training part, and two control ids; 0 for all."""
    weighting: Literal["tf-idf", "counts"] = "tf-idf"
    """counts: how often each word occurs. tf-idf: times how rare it is, each text's vector of length 1."""
    classifier: Literal["linear", "naive-bayes"] = "linear"
    """linear: logistic regression. naive-bayes: multinomial naive Bayes."""
    pseudo_count: float = 1.0
    """Added to each word's count in each class (naive Bayes), so that no word is impossible."""
    regularisation: float = 0.2
    """Weight of the penalty on large weights (linear)."""
    limit: int = 0
    """Most training examples, drawn by a hash for each seed anew; 0 for all."""
    seeds: int = 1
    """How many draws of `limit` examples are trained on, for an interval over them. The classifier that is kept is the first
    one's. Nothing else is random: with all examples there is only one run."""
    positive_class: str = ""
    """Of two classes, the one that F1 is about. Empty: the last in the order of their names."""
    test_limit: int = 0
    """Most held-out examples that are measured, drawn by a hash; 0 for all."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(
                f"must be at least 1, found {self.seeds}", where="seeds", remedy="Set it to 1 or more, or leave it out"
            )
        if self.seeds > 1 and not self.limit:
            raise ConfigError(
                "with all examples every run is the same",
                where="seeds",
                remedy="Set limit, the examples that each run draws",
            )
        for name in ("limit", "test_limit"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"cannot be negative, found {getattr(self, name)}",
                    where=name,
                    remedy="Set 0 or more, or leave it out",
                )
        for name in ("pseudo_count", "regularisation"):
            if getattr(self, name) <= 0:
                raise ConfigError(
                    f"must be above 0, found {getattr(self, name)}",
                    where=name,
                    remedy="Set a larger number, or leave it out",
                )
        if self.vocabulary_size and self.vocabulary_size < 3:
            raise ConfigError(
                f"{self.vocabulary_size} ids have no room beside the two control ids",
                where="vocabulary_size",
                remedy="Choose at least 3, or 0 for all",
            )
        if self.source.weight != 1.0:
            raise ConfigError(
                f"there is one source, so its weight means nothing, found {self.source.weight}",
                where="source.weight",
                remedy="Leave it out",
            )

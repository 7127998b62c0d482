"""Settings of the tokenizer stage. No torch here, so that help stays quick."""

from __future__ import annotations

from dataclasses import dataclass

from duihua.data.source import SourceConfig
from duihua.errors import ConfigError

SMALLEST_VOCABULARY = 256 + 4


@dataclass(frozen=True)
class TokenizerConfig:
    """Byte-level BPE learnt from a sample with as much English as Chinese."""

    sources: tuple[SourceConfig, ...] = (SourceConfig(name="race-text"),)
    """Where the text comes from. A source with a larger weight gives more of the sample."""
    vocabulary_size: int = 8192
    """Number of ids, the 256 bytes and the 4 control tokens included."""
    megabytes: float = 4.0
    """Size of the sample for each language, in MB of UTF-8. Less is taken where the sources hold less."""
    read_megabytes: float = 48.0
    """At most this many MB of each source are read, and the sample is drawn evenly from them."""
    heldout_megabytes: float = 0.5
    """Size of the held-out text for each language on which characters per token are measured."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("there is no source of text", where="sources", remedy="Name at least one")
        if self.vocabulary_size < SMALLEST_VOCABULARY:
            raise ConfigError(
                f"a vocabulary of {self.vocabulary_size} cannot hold the 256 bytes and 4 control tokens",
                where="vocabulary_size",
                remedy=f"Choose at least {SMALLEST_VOCABULARY}",
            )
        for name in ("megabytes", "read_megabytes", "heldout_megabytes"):
            if getattr(self, name) <= 0:
                raise ConfigError(
                    f"must be above 0, found {getattr(self, name)}",
                    where=name,
                    remedy="Set a larger number, or leave it out",
                )

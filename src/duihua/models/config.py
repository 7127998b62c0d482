"""The decoder's shape as data. No torch here, so that the command line's help stays quick."""

from __future__ import annotations

from dataclasses import dataclass

from duihua.errors import ConfigError


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of the decoder; the Qwen3 family, so that any tool that reads Qwen3 reads ours."""

    vocabulary_size: int
    """Rows of the embedding."""
    width: int = 256
    """Size of the vector that stands for a token in every layer (d_model)."""
    layers: int = 4
    """Number of blocks."""
    heads: int = 4
    """Query heads of each attention layer."""
    key_value_heads: int = 2
    """Key and value heads; each serves heads / key_value_heads query heads."""
    head_width: int = 64
    """Size of one head's queries, keys and values."""
    feed_forward_width: int = 704
    """Hidden units of the gated feed-forward layer."""
    context: int = 256
    """Most tokens that the model reads at once."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    norm_epsilon: float = 1e-6
    """Added to the mean square in every norm."""
    tied_embeddings: bool = False
    """Whether the output layer uses the embedding's own matrix."""

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "width", "layers", "heads", "key_value_heads", "head_width", "context"):
            if getattr(self, name) < 1:
                raise ConfigError(f"must be at least 1, found {getattr(self, name)}", where=f"decoder.{name}")
        if self.heads % self.key_value_heads:
            raise ConfigError(
                f"{self.heads} heads cannot share {self.key_value_heads} key-value heads evenly",
                where="decoder.key_value_heads",
                remedy="Choose a divisor of heads",
            )
        if self.head_width % 2:
            raise ConfigError(f"must be even for rotary positions, found {self.head_width}", where="decoder.head_width")

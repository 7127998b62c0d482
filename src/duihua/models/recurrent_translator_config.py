"""The recurrent translators' shape as data: one field for each step from Sutskever et al. 2014 to Luong et al. 2015.

`attention: none` squeezes the whole source into the last state, which is what the attention of Bahdanau et al. 2015 was
invented to end; comparing the two means changing one field. No torch here, so that the command line's help stays quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from duihua.errors import ConfigError
from duihua.models.transformer_config import check_ids

TranslatorCell = Literal["rnn", "gru", "lstm"]
TranslatorAttention = Literal["none", "additive", "general"]
RecurrentTied = Literal["all", "output", "none"]


@dataclass(frozen=True)
class RecurrentTranslatorConfig:
    """Shape of a recurrent encoder and decoder, with or without attention between them."""

    vocabulary_size: int = 0
    """Rows of the embedding; both languages share one vocabulary. 0 in a stage's settings, where the tokenizer says it."""
    width: int = 256
    """Size of the vector that stands for a token."""
    hidden_width: int = 256
    """Units of each layer of the decoder, and of each direction of the encoder."""
    layers: int = 1
    """Layers of the encoder and of the decoder."""
    cell: TranslatorCell = "gru"
    """rnn: tanh (Elman 1990); gru: Cho et al. 2014; lstm: Hochreiter and Schmidhuber 1997, with forget gates."""
    attention: TranslatorAttention = "additive"
    """none: the decoder has the encoder's last state and nothing else (Sutskever et al. 2014); additive: before each
    step it looks at the source, v tanh(W s + U h) (Bahdanau et al. 2015, appendix A.1.2); general: after each step, s W h
    (Luong et al. 2015, section 3.1), without input feeding, so that all steps look at once."""
    bidirectional: bool = True
    """Whether the encoder also reads from right to left (Bahdanau et al. 2015, section 3.2)."""
    tied_embeddings: RecurrentTied = "all"
    """all: source embedding, target embedding and output layer are one matrix; output: the last two; none: three."""
    dropout: float = 0.3
    """Share of the embedded input, of what passes from layer to layer and of the last vectors that is zeroed in training."""
    forget_bias: float = 1.0
    """lstm: the forget gates' bias at the start, which lets a new cell remember (Jozefowicz et al. 2015)."""
    most_tokens: int = 512
    """Longest source or target, control tokens included."""
    start_id: int = 1
    """Token that every target starts with; it is read and never written."""
    end_id: int = 2
    """Token that ends every source and every target."""
    pad_id: int = 3
    """Token that fills shorter rows of a batch; never written."""

    def __post_init__(self) -> None:
        for name in ("width", "hidden_width", "layers", "most_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"must be at least 1, found {getattr(self, name)}",
                    where=name,
                    remedy="Set it to 1 or more, or leave it out",
                )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(
                f"must be in [0, 1), found {self.dropout}", where="dropout", remedy="Such as 0.1, or 0 for none"
            )
        check_ids(self.vocabulary_size, self.start_id, self.end_id, self.pad_id)

    @property
    def memory_width(self) -> int:
        """Size of the vector that the encoder gives for each source token."""
        return self.hidden_width * (2 if self.bidirectional else 1)

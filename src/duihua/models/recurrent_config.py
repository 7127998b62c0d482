"""The shape of a recurrent language model. No torch here, so that the command line's help stays quick.

The regularisation is that of the AWD-LSTM (Merity, Keskar and Socher 2018, section 2 and 3): each field names what it drops.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from duihua.errors import ConfigError
from duihua.nn.recurrent_kinds import BLOCKS, CellKind, layer_parameters


@dataclass(frozen=True)
class RecurrentConfig:
    """A language model that reads one token at a time and keeps what it read in a state of fixed size."""

    vocabulary_size: int = 0
    """Rows of the embedding; 0 in a stage's settings, where the vocabulary says it."""
    end_id: int = 0
    """Token that ends a sentence or a document; the first token of a text is predicted from it. Set by the stage."""
    cell: CellKind = "lstm"
    """rnn: tanh (Elman 1990); lstm: with forget gate (Gers et al. 2000); gru: Cho et al. 2014."""
    width: int = 200
    """Size of the embedding; with tied_embeddings also of the last layer."""
    hidden_width: int = 0
    """Size of the other layers; 0 for the same as `width`."""
    layers: int = 2
    """Recurrent layers, each fed by the one below."""
    forget_bias: float | None = 1.0
    """What the LSTM's forget gate starts with (Jozefowicz et al. 2015); None leaves it random like the other biases."""
    tied_embeddings: bool = True
    """Whether the output layer uses the embedding's own matrix (Press and Wolf 2017; Inan et al. 2017)."""
    initial_range: float = 0.1
    """The embedding starts uniform in plus-minus this (Zaremba et al. 2014 and Merity et al. 2018: 0.1). Narrow networks begin
    quicker from a larger one: 24 units learn to repeat a word within 60 steps at 1.0, and not within 150 at 0.1."""
    embedding_dropout: float = 0.0
    """Share of the vocabulary whose embeddings are zero for a whole window (Gal and Ghahramani 2016)."""
    input_dropout: float = 0.0
    """Share of the embedded input that is zeroed, the same entries at every step of a row (locked dropout)."""
    hidden_dropout: float = 0.0
    """The same between two layers."""
    output_dropout: float = 0.0
    """The same on what the last layer gives to the output layer."""
    weight_dropout: float = 0.0
    """Share of the entries of each recurrent matrix that is zeroed for a whole window (Wan et al. 2013's DropConnect)."""

    def __post_init__(self) -> None:
        for name in ("width", "layers"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"must be at least 1, found {getattr(self, name)}",
                    where=name,
                    remedy="Set it to 1 or more, or leave it out",
                )
        for name in ("vocabulary_size", "hidden_width", "end_id"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"cannot be negative, found {getattr(self, name)}",
                    where=name,
                    remedy="Set 0 or more, or leave it out",
                )
        if not 0 < self.initial_range < float("inf"):
            raise ConfigError(
                f"must be above 0, found {self.initial_range}",
                where="initial_range",
                remedy="Such as 0.1, or leave it out",
            )
        if self.vocabulary_size and self.end_id >= self.vocabulary_size:
            raise ConfigError(
                f"{self.end_id} is no id of a vocabulary of {self.vocabulary_size}",
                where="end_id",
                remedy="Leave it out: it comes from the tokenizer",
            )
        if self.cell not in BLOCKS:
            raise ConfigError(f"unknown cell {self.cell!r}", where="cell", remedy="Use rnn, lstm or gru")
        for name in ("embedding_dropout", "input_dropout", "hidden_dropout", "output_dropout", "weight_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(
                    f"must be in [0, 1), found {getattr(self, name)}", where=name, remedy="Such as 0.1, or 0 for none"
                )

    @property
    def widths(self) -> list[tuple[int, int]]:
        """(what goes in, what comes out) of each layer."""
        inner = self.hidden_width or self.width
        outs = [inner] * self.layers
        if self.tied_embeddings:
            outs[-1] = self.width
        return list(zip([self.width, *outs[:-1]], outs, strict=True))

    @property
    def parameters(self) -> int:
        """Distinct parameters: v d, once more with the last layer's width where the head is not tied, and for each layer
        blocks x e (d + e + 2), with 1, 3 and 4 blocks for rnn, gru and lstm."""
        head = 0 if self.tied_embeddings else self.vocabulary_size * self.widths[-1][1]
        layers = sum(layer_parameters(self.cell, d, e) for d, e in self.widths)
        return self.vocabulary_size * self.width + head + layers


def width_of(parameters: int, config: RecurrentConfig) -> int:
    """The width with which a model like `config` (all its layers as wide) comes nearest to a number of parameters.

    Two cells are compared at equal parameters by this: most parameters are the embedding's in both, and the RNN gets the
    wider layers. The config must have a vocabulary size.
    """

    def count(width: int) -> int:
        return replace(config, width=width, hidden_width=0).parameters

    width = 1
    while count(width + 1) <= parameters:
        width += 1
    return min((width, width + 1), key=lambda each: abs(count(each) - parameters))

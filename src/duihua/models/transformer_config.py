"""The encoder-decoder Transformer's shape as data: one field for each choice in which its published forms differ.

The defaults are the base model of Vaswani et al. 2017 (table 3): 6 + 6 layers of width 512, 8 heads, 2,048 hidden units,
sinusoids, the norm behind the addition, ReLU, dropout 0.1, one matrix for both embeddings and the output layer (section
3.4). Other fields give what torch's `nn.Transformer`, Marian and fairseq do differently, so that tests can hold this one
network equal to each of them. No torch here, so that the command line's help stays quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from duihua.errors import ConfigError

TransformerPositions = Literal["sinusoidal", "sinusoidal_halves", "learned", "none"]
TransformerActivation = Literal["relu", "gelu", "gelu_tanh", "silu", "relu_squared"]
NormPlace = Literal["post", "pre"]
TiedEmbeddings = Literal["all", "output", "none"]


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of the encoder-decoder. The defaults are the base model of "Attention Is All You Need"."""

    vocabulary_size: int = 0
    """Rows of the embedding; both languages share one vocabulary. 0 in a stage's settings, where the tokenizer says it."""
    width: int = 512
    """Size of the vector that stands for a token in every layer (d_model)."""
    encoder_layers: int = 6
    """Blocks that read the source."""
    decoder_layers: int = 6
    """Blocks that write the target."""
    heads: int = 8
    """Heads of each attention; each is width / heads wide."""
    feed_forward_width: int = 2048
    """Hidden units of the feed-forward layers (d_ff)."""
    most_tokens: int = 512
    """Longest source or target, control tokens included."""
    positions: TransformerPositions = "sinusoidal"
    """How places are told apart. sinusoidal: sines in the even, cosines in the odd dimensions (section 3.5);
    sinusoidal_halves: all sines, then all cosines, as Marian and fairseq store them; learned: a vector a place, one table
    for each side; none: the encoder then sees a bag of tokens."""
    norm_place: NormPlace = "post"
    """post: norm(x + f(x)), the paper's, which needs a warm-up; pre: x + f(norm(x)) (Xiong et al. 2020)."""
    final_norms: bool | None = None
    """Whether a norm stands behind the last encoder block and the last decoder block; None for: where norm_place is pre.
    torch's nn.Transformer always has them."""
    norm_epsilon: float = 1e-5
    """Added to the variance in every norm."""
    activation: TransformerActivation = "relu"
    """Of the feed-forward layers. relu: the paper, equation 2; gelu, silu: Marian's newer models (silu is swish)."""
    attention_bias: bool = False
    """Biases in the query, key, value and output projections: not in the paper's formulas, but in torch and Marian."""
    feed_forward_bias: bool = True
    """Biases in the feed-forward projections (equation 2)."""
    output_bias: bool = False
    """A number a token added to the logits (Marian's final_logits_bias)."""
    tied_embeddings: TiedEmbeddings = "all"
    """all: source embedding, target embedding and output layer are one matrix (section 3.4); output: the target embedding
    and the output layer are (Press and Wolf 2017), the source has its own; none: three matrices."""
    scaled_embeddings: bool = True
    """Embeddings are multiplied by sqrt(width) before the positions are added (section 3.4)."""
    dropout: float = 0.1
    """Share of each sub-layer's output, and of the embedded input, that is zeroed in training (section 5.4)."""
    attention_dropout: float = 0.0
    """Share of the attention weights that is zeroed in training."""
    activation_dropout: float = 0.0
    """Share of the feed-forward layers' hidden units that is zeroed in training."""
    start_id: int = 1
    """Token that every target starts with; it is read and never written."""
    end_id: int = 2
    """Token that ends every source and every target."""
    pad_id: int = 3
    """Token that fills shorter rows of a batch; never written."""

    def __post_init__(self) -> None:
        counts = ("width", "encoder_layers", "decoder_layers", "heads", "feed_forward_width")
        for name in (*counts, "most_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"must be at least 1, found {getattr(self, name)}",
                    where=name,
                    remedy="Set it to 1 or more, or leave it out",
                )
        if self.width % self.heads:
            raise ConfigError(
                f"{self.heads} heads cannot share a width of {self.width} evenly",
                where="heads",
                remedy="Choose a divisor of width",
            )
        if self.width % 2 and self.positions.startswith("sinusoidal"):
            raise ConfigError(
                f"must be even for sinusoids, found {self.width}", where="width", remedy="Choose an even width"
            )
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(
                    f"must be in [0, 1), found {getattr(self, name)}", where=name, remedy="Such as 0.1, or 0 for none"
                )
        if self.norm_epsilon <= 0:
            raise ConfigError(
                f"must be above 0, found {self.norm_epsilon}",
                where="norm_epsilon",
                remedy="Such as 1e-5, or leave it out",
            )
        check_ids(self.vocabulary_size, self.start_id, self.end_id, self.pad_id)

    @property
    def has_final_norms(self) -> bool:
        """Whether the two stacks end with a norm of their own."""
        return self.norm_place == "pre" if self.final_norms is None else self.final_norms

    @property
    def parameters(self) -> int:
        """Number of distinct parameters, by formula.

        An attention has 4 d^2 (+ 4 d), a feed-forward layer 2 d f (+ f + d), a norm 2 d; an encoder block has one attention
        and two norms, a decoder block two attentions and three norms.
        """
        d, f, v = self.width, self.feed_forward_width, self.vocabulary_size
        attention = 4 * d * d + (4 * d if self.attention_bias else 0)
        feed_forward = 2 * d * f + (f + d if self.feed_forward_bias else 0)
        norm = 2 * d
        encoder = self.encoder_layers * (attention + feed_forward + 2 * norm)
        decoder = self.decoder_layers * (2 * attention + feed_forward + 3 * norm)
        matrices = {"all": 1, "output": 2, "none": 3}[self.tied_embeddings]
        positions = 2 * self.most_tokens * d if self.positions == "learned" else 0
        ends = (2 * norm if self.has_final_norms else 0) + (v if self.output_bias else 0)
        return encoder + decoder + matrices * v * d + positions + ends


def check_ids(vocabulary_size: int, start_id: int, end_id: int, pad_id: int) -> None:
    """Raise ConfigError unless the control tokens are inside the vocabulary (where its size is known: not 0) and the end is
    not the pad."""
    if vocabulary_size < 0:
        raise ConfigError(
            f"cannot be negative, found {vocabulary_size}",
            where="vocabulary_size",
            remedy="Leave it out: it comes from the tokenizer",
        )
    for name, value in (("start_id", start_id), ("end_id", end_id), ("pad_id", pad_id)):
        if value < 0 or (vocabulary_size and value >= vocabulary_size):
            raise ConfigError(
                f"must be an id of the vocabulary of {vocabulary_size}, found {value}",
                where=name,
                remedy="Leave it out: it comes from the tokenizer",
            )
    if end_id == pad_id:
        raise ConfigError(
            f"the end and the pad cannot be one token, found {end_id} for both",
            where="end_id",
            remedy="Leave both out: they come from the tokenizer",
        )

"""The decoder's shape as data: one field for each architectural choice, with the paper it comes from.

Why one class and not one for each family: GPT-1, GPT-2, Llama and Qwen3 differ in a dozen small choices, so that
comparing two of them means changing one field, and a fix serves all. `models/presets.py` names the combinations that
were published. The defaults are Qwen3's, which other programs read. No torch here, so that the command line's help stays
quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from duihua.errors import ConfigError

Positions = Literal["rotary", "learned", "sinusoidal", "none"]
Norm = Literal["rms", "layer"]
NormPlace = Literal["pre", "post"]
QueryKeyNorm = Literal["none", "weighted", "plain"]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu_squared"]
RopeKind = Literal["linear", "dynamic", "yarn", "llama3"]
Initialisation = Literal["zero_output", "normal", "normal_scaled"]


@dataclass(frozen=True)
class RopeScaling:
    """How the rotary frequencies are changed so that a model reads further than it was trained for."""

    kind: RopeKind
    """linear: all positions divided by the factor (Chen et al. 2023); dynamic: the base grows with the length (NTK-aware,
    as in transformers); yarn: high frequencies stay, low ones are divided, in between a ramp, and the tables are scaled
    by an attention factor (Peng et al. 2023, section 3); llama3: Llama 3.1's smooth ramp between two wavelengths."""
    factor: float = 1.0
    """How many times longer the context becomes."""
    original_context: int | None = None
    """Context that the model was trained with; None for the model's own."""
    low_frequency_factor: float = 1.0
    """llama3: wavelengths longer than original_context / this are divided by the factor."""
    high_frequency_factor: float = 4.0
    """llama3: wavelengths shorter than original_context / this stay."""
    beta_fast: float = 32.0
    """yarn: rotations over the original context above which a frequency stays."""
    beta_slow: float = 1.0
    """yarn: rotations over the original context below which a frequency is divided by the factor."""
    attention_factor: float | None = None
    """yarn: factor on cosines and sines; None for 0.1 ln(factor) + 1 (or what the two fields below give)."""
    mscale: float | None = None
    """yarn: with mscale_all_dim, another formula for the attention factor (DeepSeek's)."""
    mscale_all_dim: float | None = None
    """yarn: see mscale."""
    truncate: bool = True
    """yarn: whether the ends of the ramp are rounded to whole dimensions."""

    def __post_init__(self) -> None:
        for name in ("factor", "low_frequency_factor", "beta_fast", "beta_slow"):
            if getattr(self, name) <= 0:
                raise ConfigError(
                    f"must be positive, found {getattr(self, name)}",
                    where=f"rope_scaling.{name}",
                    remedy="Set a larger number, or leave it out",
                )
        if self.original_context is not None and self.original_context < 1:
            raise ConfigError(
                f"must be at least 1, found {self.original_context}",
                where="rope_scaling.original_context",
                remedy="Set it to 1 or more, or leave it out",
            )
        if self.high_frequency_factor <= self.low_frequency_factor:
            raise ConfigError(
                f"must be greater than low_frequency_factor, found {self.high_frequency_factor}",
                where="rope_scaling.high_frequency_factor",
                remedy="Raise it, or lower low_frequency_factor; Llama 3 has 4 and 1",
            )


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of the decoder. The defaults are the Qwen3 family's, so that any tool that reads Qwen3 reads ours."""

    vocabulary_size: int
    """Rows of the embedding."""
    width: int = 256
    """Size of the vector that stands for a token in every layer (d_model)."""
    layers: int = 4
    """Number of blocks."""
    heads: int = 4
    """Query heads of each attention layer."""
    key_value_heads: int = 2
    """Key and value heads; each serves heads / key_value_heads query heads (Ainslie et al. 2023)."""
    head_width: int = 64
    """Size of one head's queries, keys and values."""
    feed_forward_width: int = 704
    """Hidden units of the feed-forward layer."""
    context: int = 256
    """Most tokens that the model reads at once."""
    positions: Positions = "rotary"
    """How places are told apart. rotary: queries and keys are turned (Su et al. 2021); learned: a vector a place added to
    the embedding (GPT-1, section 4.1); sinusoidal: the fixed one of Vaswani et al. 2017, section 3.5; none: only the
    causal mask tells them apart (Kazemnejad et al. 2023)."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies (Su et al. 2021, section 3.3)."""
    rope_scaling: RopeScaling | None = None
    """Rotary positions stretched beyond the context of the training; None for none."""
    norm: Norm = "rms"
    """rms: root mean square without mean and bias (Zhang and Sennrich 2019); layer: layer norm with weight and bias (Ba et
    al. 2016), as in GPT-1 and GPT-2."""
    norm_place: NormPlace = "pre"
    """pre: x + f(norm(x)), GPT-2 and later (Xiong et al. 2020); post: norm(x + f(x)), GPT-1 and Vaswani et al. 2017."""
    final_norm: bool = True
    """Whether a norm stands before the head: with norm_place pre it should; GPT-1 has none."""
    norm_epsilon: float = 1e-6
    """Added to the mean square or the variance in every norm."""
    query_key_norm: QueryKeyNorm = "weighted"
    """Root-mean-square norm of each head's queries and keys before the rotation, which bounds the scores (Henry et al.
    2020). weighted: with a learnt weight, as in Qwen3; plain: without; none: as in GPT and Llama."""
    activation: Activation = "silu"
    """Of the feed-forward layer. silu: Llama, Qwen3; gelu: exact (Hendrycks and Gimpel 2016); gelu_tanh: its tanh form,
    which GPT-1 and GPT-2 use; relu: Vaswani et al. 2017; relu_squared: So et al. 2021."""
    gated: bool = True
    """Whether the hidden units are multiplied by a second projection: down(f(gate(x)) * up(x)) (Shazeer 2020)."""
    attention_bias: bool = False
    """Biases in the query, key, value and output projections (GPT-1, GPT-2)."""
    feed_forward_bias: bool = False
    """Biases in the feed-forward projections (GPT-1, GPT-2)."""
    tied_embeddings: bool = False
    """Whether the output layer uses the embedding's own matrix (Press and Wolf 2017)."""
    embedding_dropout: float = 0.0
    """Share of the embedded input that is zeroed in training (GPT-1, section 4.1: 0.1)."""
    attention_dropout: float = 0.0
    """Share of the attention weights that is zeroed in training."""
    residual_dropout: float = 0.0
    """Share of each sub-layer's output that is zeroed in training before it is added."""
    value_embeddings: bool = False
    """Every second layer adds to its values a learnt vector for each token, times a learnt gate (the value residual of Zhou
    et al. 2024, in the form of the modded-nanogpt speed runs)."""
    residual_scalars: bool = False
    """Each block first mixes its input with the embedded token: a x + b x_0, with a and b learnt for each layer (the
    modded-nanogpt speed runs)."""
    logit_soft_cap: float = 0.0
    """c tanh(logits / c), which keeps logits within +-c (Gemma 2, section 2); 0 for none."""
    initialisation: Initialisation = "zero_output"
    """zero_output: projections into the residual stream start at zero, other matrices uniform with deviation
    1/sqrt(inputs) (Zhang et al. 2019, Fixup; the speed runs); normal: N(0, initialiser_range) everywhere (GPT-1, section 4.1);
    normal_scaled: so, with projections into the residual stream divided by sqrt(2 layers) (GPT-2, section 2.3)."""
    initialiser_range: float = 0.02
    """Standard deviation of normal and normal_scaled."""

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "width", "layers", "heads", "key_value_heads", "head_width", "context"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"must be at least 1, found {getattr(self, name)}",
                    where=f"decoder.{name}",
                    remedy="Set it to 1 or more, or leave it out",
                )
        if self.heads % self.key_value_heads:
            raise ConfigError(
                f"{self.heads} heads cannot share {self.key_value_heads} key-value heads evenly",
                where="decoder.key_value_heads",
                remedy="Choose a divisor of heads",
            )
        if self.positions == "rotary" and self.head_width % 2:
            raise ConfigError(
                f"must be even for rotary positions, found {self.head_width}",
                where="decoder.head_width",
                remedy="Choose an even one, such as 64",
            )
        if self.rope_scaling is not None and self.positions != "rotary":
            raise ConfigError("needs rotary positions", where="decoder.rope_scaling", remedy="Set positions: rotary")
        if self.rope_scaling is not None and self.rope_scaling.kind == "dynamic" and self.head_width < 4:
            raise ConfigError(
                "must be at least 4 for dynamic scaling",
                where="decoder.head_width",
                remedy="Choose 4 or more, or another rope_scaling.kind",
            )
        for name in ("embedding_dropout", "attention_dropout", "residual_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(
                    f"must be in [0, 1), found {getattr(self, name)}",
                    where=f"decoder.{name}",
                    remedy="Such as 0.1, or 0 for none",
                )
        if self.logit_soft_cap < 0:
            raise ConfigError(
                f"must not be negative, found {self.logit_soft_cap}",
                where="decoder.logit_soft_cap",
                remedy="Set 0 for none; Gemma 2 has 30",
            )

    def check_bigram_start(self) -> None:
        """ConfigError where a fresh decoder is no model of bigrams, so that models/bigram_start.py has nothing to write."""
        wrong = {
            "tied_embeddings": self.tied_embeddings,
            "initialisation": self.initialisation != "zero_output",
            "final_norm": not self.final_norm,
            "norm_place": self.norm_place != "pre",
        }
        for field in (field for field, bad in wrong.items() if bad):
            raise ConfigError(
                "a start from bigrams needs tied_embeddings false, initialisation zero_output, final_norm true and norm_place "
                f"pre; found {getattr(self, field)}",
                where=f"decoder.{field}",
                remedy="Change it, or set start: random",
            )

"""Llama (Touvron et al. 2023): rotary positions on halves, RMSNorm, grouped heads, a gated feed-forward layer.

Its words are also Qwen3's, which adds the norms of queries and keys; models/interop/qwen3.py changes what differs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from duihua.models.config import Activation, DecoderConfig
from duihua.models.interop.family import ConfigReader, Family, TensorPlace
from duihua.models.interop.rope import read_rope, rope_limits, write_rope

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu_squared",
}
"""Word in config.json -> our field. gelu_new and gelu_pytorch_tanh are one formula."""

COMMON_LIMITS: dict[str, Sequence[object]] = {
    "positions": ("rotary",),
    "norm": ("rms",),
    "norm_place": ("pre",),
    "final_norm": (True,),
    "gated": (True,),
    "value_embeddings": (False,),
    "residual_scalars": (False,),
    "logit_soft_cap": (0.0,),
}

_NORMS = {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"}
_ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
_FEED_FORWARD = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}


def write(config: DecoderConfig) -> dict[str, Any]:
    """config.json without the token ids."""
    return {
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.width,
        "intermediate_size": config.feed_forward_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.head_width,
        "hidden_act": {ours: word for word, ours in reversed(ACTIVATIONS.items())}[config.activation],
        "rms_norm_eps": config.norm_epsilon,
        **write_rope(config),
        "tie_word_embeddings": config.tied_embeddings,
        "attention_bias": config.attention_bias,
        "mlp_bias": config.feed_forward_bias,
        "attention_dropout": config.attention_dropout,
        "initializer_range": config.initialiser_range,
        "use_cache": True,
    }


def read_common(reader: ConfigReader) -> dict[str, Any]:
    """The fields that Llama and Qwen3 spell alike."""
    reader.refuse("quantization_config", (), "quantised weights")
    heads = reader.whole("num_attention_heads")
    return {
        "vocabulary_size": reader.whole("vocab_size"),
        "width": reader.whole("hidden_size"),
        "layers": reader.whole("num_hidden_layers"),
        "heads": heads,
        "key_value_heads": reader.whole("num_key_value_heads", default=heads),
        "feed_forward_width": reader.whole("intermediate_size"),
        **read_rope(reader),
        "norm_epsilon": reader.real("rms_norm_eps", default=1e-6),
        "activation": reader.one_of("hidden_act", ACTIVATIONS, "silu", "another activation"),
        "attention_bias": reader.flag("attention_bias"),
        "tied_embeddings": reader.flag("tie_word_embeddings"),
        "attention_dropout": reader.real("attention_dropout", default=0.0),
        "initialiser_range": reader.real("initializer_range", default=0.02),
    }


def read(reader: ConfigReader) -> dict[str, Any]:
    """The fields of DecoderConfig."""
    fields = read_common(reader)
    return fields | {
        "head_width": reader.whole("head_dim", default=max(1, fields["width"] // max(1, fields["heads"]))),
        "feed_forward_bias": reader.flag("mlp_bias"),
        "query_key_norm": "none",
    }


def layout(config: DecoderConfig) -> list[TensorPlace]:
    """Every matrix is ours as it is. With norms of queries and keys where the config has them."""

    def suffixes(bias: bool) -> tuple[str, ...]:
        return ("weight", "bias") if bias else ("weight",)

    def pair(theirs: str, ours: str, bias: bool = False) -> list[TensorPlace]:
        return [TensorPlace(f"{theirs}.{suffix}", (f"{ours}.{suffix}",)) for suffix in suffixes(bias)]

    tensors = pair("model.embed_tokens", "embedding")
    for layer in range(config.layers):
        theirs, ours = f"model.layers.{layer}", f"blocks.{layer}"
        for name, word in _NORMS.items():
            tensors += pair(f"{theirs}.{word}", f"{ours}.{name}")
        for name, word in _ATTENTION.items():
            tensors += pair(f"{theirs}.self_attn.{word}", f"{ours}.attention.{name}", config.attention_bias)
        if config.query_key_norm == "weighted":
            tensors += pair(f"{theirs}.self_attn.q_norm", f"{ours}.attention.query_norm")
            tensors += pair(f"{theirs}.self_attn.k_norm", f"{ours}.attention.key_norm")
        for name, word in _FEED_FORWARD.items():
            tensors += pair(f"{theirs}.mlp.{word}", f"{ours}.feed_forward.{name}", config.feed_forward_bias)
    return [*tensors, *pair("model.norm", "final_norm")]


def _further_limits(config: DecoderConfig) -> list[str]:
    found = rope_limits(config)
    if config.width % config.heads:
        found.append(f"width {config.width} is not a multiple of heads {config.heads}")
    return found


LLAMA = Family(
    name="llama",
    title="Llama",
    architectures={"policy": "LlamaForCausalLM", "reward": "LlamaForSequenceClassification"},
    base_architecture="LlamaModel",
    prefix="model.",
    passed_over=re.compile(r"rotary_emb\.inv_freq$"),
    limits=COMMON_LIMITS | {"query_key_norm": ("none",)},
    further_limits=_further_limits,
    write=write,
    read=read,
    layout=layout,
)

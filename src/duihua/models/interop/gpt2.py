"""GPT-2 (Radford et al. 2019) in the words of transformers.

The layer that its code calls Conv1D is a linear layer whose matrix is stored with inputs first, and query, key and value
are one matrix (`c_attn`), in this order. Directories of the first years lack the prefix `transformer.`, and carry the
causal mask along as `attn.bias`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from duihua.models.config import DecoderConfig
from duihua.models.interop.family import ConfigReader, Family, TensorPlace
from duihua.models.interop.llama import ACTIVATIONS

COMMON_LIMITS: dict[str, Sequence[object]] = {
    "positions": ("learned",),
    "norm": ("layer",),
    "query_key_norm": ("none",),
    "gated": (False,),
    "attention_bias": (True,),
    "feed_forward_bias": (True,),
    "value_embeddings": (False,),
    "residual_scalars": (False,),
    "logit_soft_cap": (0.0,),
}


def write_common(config: DecoderConfig) -> dict[str, Any]:
    """What GPT-1 and GPT-2 spell alike."""
    return {
        "vocab_size": config.vocabulary_size,
        "n_positions": config.context,
        "n_ctx": config.context,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "layer_norm_epsilon": config.norm_epsilon,
        "embd_pdrop": config.embedding_dropout,
        "attn_pdrop": config.attention_dropout,
        "resid_pdrop": config.residual_dropout,
        "initializer_range": config.initialiser_range,
        "tie_word_embeddings": config.tied_embeddings,
    }


def _write(config: DecoderConfig) -> dict[str, Any]:
    words = {ours: word for word, ours in ACTIVATIONS.items()}  # of two spellings the last: gelu_new, GPT-2's own
    return write_common(config) | {
        "n_inner": config.feed_forward_width,
        "activation_function": words[config.activation],
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
        "use_cache": True,
    }


def read_common(reader: ConfigReader) -> dict[str, Any]:
    """The fields that GPT-1 and GPT-2 spell alike. Some writers use the names that other families have."""
    reader.refuse("quantization_config", (), "quantised weights")
    width, heads = reader.whole("n_embd", "hidden_size"), reader.whole("n_head", "num_attention_heads")
    if heads < 1 or width % heads:
        reader.problems.append(f"n_embd: {width} cannot be split into {heads} heads")
        heads = 1
    return {
        "vocabulary_size": reader.whole("vocab_size"),
        "width": width,
        "layers": reader.whole("n_layer", "num_hidden_layers"),
        "heads": heads,
        "key_value_heads": heads,
        "head_width": width // heads,
        "feed_forward_width": 4 * width,
        "context": reader.whole("n_positions", "max_position_embeddings", "n_ctx"),
        "positions": "learned",
        "norm": "layer",
        "norm_epsilon": reader.real("layer_norm_epsilon", default=1e-5),
        "query_key_norm": "none",
        "gated": False,
        "attention_bias": True,
        "feed_forward_bias": True,
        "tied_embeddings": reader.flag("tie_word_embeddings", default=True),
        "embedding_dropout": reader.real("embd_pdrop", default=0.1),
        "attention_dropout": reader.real("attn_pdrop", default=0.1),
        "residual_dropout": reader.real("resid_pdrop", default=0.1),
        "initialiser_range": reader.real("initializer_range", default=0.02),
    }


def _read(reader: ConfigReader) -> dict[str, Any]:
    reader.refuse("scale_attn_weights", (True,), "attention without the scale 1/sqrt(e)")
    reader.refuse("scale_attn_by_inverse_layer_idx", (False,), "attention scaled by the layer's number")
    reader.refuse("add_cross_attention", (False,), "cross-attention")
    fields = read_common(reader)
    return fields | {
        "feed_forward_width": reader.whole("n_inner", default=fields["feed_forward_width"]),
        "activation": reader.one_of("activation_function", ACTIVATIONS, "gelu_new", "another activation"),
        "initialisation": "normal_scaled",
    }


def block_layout(layer: int) -> list[TensorPlace]:
    """A block of GPT-1 or GPT-2."""
    theirs, ours = f"transformer.h.{layer}", f"blocks.{layer}"
    attention, hidden = f"{ours}.attention", f"{ours}.feed_forward"
    pairs: list[tuple[str, tuple[str, ...], bool]] = [
        ("ln_1", (f"{ours}.attention_norm",), False),
        ("attn.c_attn", (f"{attention}.query", f"{attention}.key", f"{attention}.value"), True),
        ("attn.c_proj", (f"{attention}.output",), True),
        ("ln_2", (f"{ours}.feed_forward_norm",), False),
        ("mlp.c_fc", (f"{hidden}.up",), True),
        ("mlp.c_proj", (f"{hidden}.down",), True),
    ]
    return [
        TensorPlace(
            f"{theirs}.{word}.{suffix}", tuple(f"{name}.{suffix}" for name in names), turned and suffix == "weight"
        )
        for word, names, turned in pairs
        for suffix in ("weight", "bias")
    ]


def _layout(config: DecoderConfig) -> list[TensorPlace]:
    tensors = [
        TensorPlace("transformer.wte.weight", ("embedding.weight",)),
        TensorPlace("transformer.wpe.weight", ("position_embedding.weight",)),
    ]
    for layer in range(config.layers):
        tensors += block_layout(layer)
    for suffix in ("weight", "bias"):
        tensors.append(TensorPlace(f"transformer.ln_f.{suffix}", (f"final_norm.{suffix}",)))
    return tensors


def further_limits(config: DecoderConfig) -> list[str]:
    """One key-value head for each query head, which share the width."""
    found = []
    if config.key_value_heads != config.heads:
        found.append(f"{config.key_value_heads} key_value_heads beside {config.heads} heads")
    if config.heads * config.head_width != config.width:
        found.append(f"{config.heads} heads of {config.head_width} in a width of {config.width}")
    return found


GPT2 = Family(
    name="gpt2",
    title="GPT-2",
    architectures={"policy": "GPT2LMHeadModel", "reward": "GPT2ForSequenceClassification"},
    base_architecture="GPT2Model",
    prefix="transformer.",
    passed_over=re.compile(r"(^|\.)attn\.(bias|masked_bias)$"),
    limits=COMMON_LIMITS | {"norm_place": ("pre",), "final_norm": (True,)},
    further_limits=further_limits,
    write=_write,
    read=_read,
    layout=_layout,
)

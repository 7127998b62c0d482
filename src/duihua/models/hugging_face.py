"""Our decoder in the words of Hugging Face's Qwen3: names of tensors, keys of config.json.

Why Qwen3: its block (rotary positions on halves, RMSNorm, normed queries and keys, grouped heads, SwiGLU, no biases) is
ours exactly, so that a model trained here is read by every program that reads Qwen3, and a Qwen3 directory is read
here. What this decoder does not compute is refused by name; nothing in a config is ignored that would change numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from duihua.errors import BundleError, ConfigError
from duihua.models.config import DecoderConfig

Kind = Literal["policy", "reward"]
ARCHITECTURES: dict[Kind, str] = {"policy": "Qwen3ForCausalLM", "reward": "Qwen3ForSequenceClassification"}

_TENSORS = {
    "embedding": "model.embed_tokens",
    "final_norm": "model.norm",
    "head": "lm_head",
    "score": "score",
}
_BLOCK_TENSORS = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "attention.query_norm": "self_attn.q_norm",
    "attention.key_norm": "self_attn.k_norm",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}


def tensor_name(parameter: str) -> str:
    """Qwen3's name for a parameter of `Decoder` or `ScoredDecoder`: `blocks.0.attention.query.weight` ->
    `model.layers.0.self_attn.q_proj.weight`."""
    module, _, suffix = parameter.removeprefix("decoder.").rpartition(".")
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)", module)
    found = f"model.layers.{block[1]}.{_BLOCK_TENSORS[block[2]]}" if block else _TENSORS[module]
    return f"{found}.{suffix}"


def config_mapping(config: DecoderConfig, kind: Kind, dtype: str) -> dict[str, Any]:
    """config.json without the token ids. Rotary base and dtype stand under the old and the new key alike."""
    mapping: dict[str, Any] = {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": "qwen3",
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.width,
        "intermediate_size": config.feed_forward_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tied_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": config.layers,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": dtype,
        "dtype": dtype,
    }
    if kind == "reward":
        mapping |= {"num_labels": 1, "id2label": {"0": "score"}, "label2id": {"score": 0}}
    return mapping


def read_config(mapping: Mapping[str, Any], where: str) -> tuple[DecoderConfig, Kind]:
    """The decoder's shape and the kind of bundle out of a config.json. BundleError names the first thing that this
    decoder cannot be or do."""
    model_type = mapping.get("model_type")
    if model_type != "qwen3":
        raise BundleError(
            f"model_type is {model_type!r}, and only 'qwen3' is read",
            where=where,
            remedy="Use a bundle of duihua or a Qwen3 model directory",
        )
    theta = _rotary_base(mapping, where)
    for key, only, meaning in (
        ("attention_bias", (False, None), "biases in attention"),
        ("use_sliding_window", (False, None), "sliding-window attention"),
        ("hidden_act", ("silu", None), "another activation"),
        ("quantization_config", (None,), "quantised weights"),
    ):
        if mapping.get(key) not in only:
            raise BundleError(
                f"{meaning} ({mapping[key]!r}) is not supported",
                where=f"{where} {key}",
                remedy="Use a model without it",
            )
    heads = _number(mapping, "num_attention_heads", where)
    try:
        config = DecoderConfig(
            vocabulary_size=_number(mapping, "vocab_size", where),
            width=_number(mapping, "hidden_size", where),
            layers=_number(mapping, "num_hidden_layers", where),
            heads=heads,
            key_value_heads=_number(mapping, "num_key_value_heads", where, default=heads),
            head_width=_number(mapping, "head_dim", where, default=128),
            feed_forward_width=_number(mapping, "intermediate_size", where),
            context=_number(mapping, "max_position_embeddings", where),
            rope_theta=theta,
            norm_epsilon=_real(mapping, "rms_norm_eps", where, default=1e-6),
            tied_embeddings=bool(mapping.get("tie_word_embeddings", False)),
        )
    except ConfigError as error:
        raise BundleError(f"{error.where} {error.problem}", where=where, remedy="Fetch config.json again") from error
    return config, _kind(mapping, where)


def _kind(mapping: Mapping[str, Any], where: str) -> Kind:
    named = mapping.get("architectures") or [ARCHITECTURES["policy"]]
    for kind, architecture in ARCHITECTURES.items():
        if architecture in named:
            return kind
    raise BundleError(
        f"architecture {named[0]!r} is not read",
        where=f"{where} architectures",
        remedy=f"It must be one of {', '.join(ARCHITECTURES.values())}",
    )


def _rotary_base(mapping: Mapping[str, Any], where: str) -> float:
    """rope_parameters (transformers 5) goes before rope_theta and rope_scaling (transformers 4)."""
    for key in ("rope_parameters", "rope_scaling"):
        settings = mapping.get(key) or {}
        if not isinstance(settings, Mapping):
            raise BundleError("expected an object", where=f"{where} {key}")
        form = settings.get("rope_type", settings.get("type", "default"))
        if form != "default" or settings.get("partial_rotary_factor", 1.0) != 1.0:
            raise BundleError(
                f"rotary positions of type {form!r} with {dict(settings)} are not supported",
                where=f"{where} {key}",
                remedy="Use a model with plain rotary positions",
            )
        if "rope_theta" in settings:
            return _real(settings, "rope_theta", f"{where} {key}")
    return _real(mapping, "rope_theta", where, default=10_000.0)


def _number(mapping: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int:
    value = mapping.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool):
        found = "nothing" if value is None else repr(value)
        raise BundleError(f"expected a whole number, found {found}", where=f"{where} {key}", remedy="Fetch it again")
    return value


def _real(mapping: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    value = mapping.get(key)
    value = default if value is None else value
    if not isinstance(value, int | float) or isinstance(value, bool):
        found = "nothing" if value is None else repr(value)
        raise BundleError(f"expected a number, found {found}", where=f"{where} {key}", remedy="Fetch it again")
    return float(value)

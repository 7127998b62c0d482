"""Qwen3 (Yang et al. 2025): Llama's block with normed queries and keys, and heads of any width.

It is what a model trained here is by default, so that every program that reads Qwen3 reads ours.
"""

from __future__ import annotations

from typing import Any

from duihua.models.config import DecoderConfig
from duihua.models.interop import llama
from duihua.models.interop.family import ConfigReader, Family
from duihua.models.interop.rope import rope_limits


def _write(config: DecoderConfig) -> dict[str, Any]:
    mapping = llama.write(config)
    del mapping["mlp_bias"]
    return mapping | {"use_sliding_window": False, "sliding_window": None, "max_window_layers": config.layers}


def _read(reader: ConfigReader) -> dict[str, Any]:
    reader.refuse("use_sliding_window", (False,), "sliding-window attention")
    kinds = reader.mapping.get("layer_types") or []
    if any(kind != "full_attention" for kind in kinds):
        reader.problems.append(f"layer_types: {sorted(set(kinds))} is not supported, only full_attention")
    fields = llama.read_common(reader)
    return fields | {"head_width": reader.whole("head_dim", default=128), "query_key_norm": "weighted"}


QWEN3 = Family(
    name="qwen3",
    title="Qwen3",
    architectures={"policy": "Qwen3ForCausalLM", "reward": "Qwen3ForSequenceClassification"},
    base_architecture="Qwen3Model",
    prefix="model.",
    passed_over=llama.LLAMA.passed_over,
    limits=llama.COMMON_LIMITS | {"query_key_norm": ("weighted",), "feed_forward_bias": (False,)},
    further_limits=rope_limits,
    write=_write,
    read=_read,
    layout=llama.layout,
)

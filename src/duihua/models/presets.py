"""Published shapes of decoders by name, and the project's own.

Why a name gives a whole config and not a class: `preset("gpt2", width=192)` is GPT-2 with one field changed, which is how
two architectures are compared. Each preset says where its numbers come from; no torch here, so that help stays quick.
Sizes for a laptop (`qwen3`, `llama`, `fast`) share one width and depth, so that they differ by what the family is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from duihua.config.mapping import suggestion
from duihua.errors import ConfigError
from duihua.models.config import DecoderConfig, RopeScaling

SMALL_VOCABULARY = 8192
"""Tokens of the small presets, which have no published vocabulary: the quickstart's."""


def gpt1() -> DecoderConfig:
    """GPT-1, 116.5 million parameters (Radford et al. 2018, section 4.1): norms behind the addition, learned positions, no
    final norm, dropout 0.1 everywhere. The vocabulary is that of the published weights: 40,000 merges and 478 characters."""
    return DecoderConfig(
        vocabulary_size=40_478,
        width=768,
        layers=12,
        heads=12,
        key_value_heads=12,
        head_width=64,
        feed_forward_width=3072,
        context=512,
        positions="learned",
        norm="layer",
        norm_place="post",
        final_norm=False,
        norm_epsilon=1e-5,
        query_key_norm="none",
        activation="gelu_tanh",
        gated=False,
        attention_bias=True,
        feed_forward_bias=True,
        tied_embeddings=True,
        embedding_dropout=0.1,
        attention_dropout=0.1,
        residual_dropout=0.1,
        initialisation="normal",
    )


def gpt2() -> DecoderConfig:
    """GPT-2 of 124 million parameters (Radford et al. 2019, section 2.3 and table 2): norms moved before each sub-layer and
    one more at the end, context 1,024, projections into the residual stream scaled down at the start."""
    return dataclasses.replace(
        gpt1(),
        vocabulary_size=50_257,
        context=1024,
        norm_place="pre",
        final_norm=True,
        initialisation="normal_scaled",
    )


def _gpt2(width: int, layers: int, heads: int) -> DecoderConfig:
    return dataclasses.replace(
        gpt2(),
        width=width,
        layers=layers,
        heads=heads,
        key_value_heads=heads,
        head_width=width // heads,
        feed_forward_width=4 * width,
    )


def gpt2_medium() -> DecoderConfig:
    """GPT-2 of 355 million parameters (Radford et al. 2019, table 2, second row)."""
    return _gpt2(1024, 24, 16)


def gpt2_large() -> DecoderConfig:
    """GPT-2 of 774 million parameters (Radford et al. 2019, table 2, third row)."""
    return _gpt2(1280, 36, 20)


def gpt2_xl() -> DecoderConfig:
    """GPT-2 of 1.6 billion parameters (Radford et al. 2019, table 2, fourth row)."""
    return _gpt2(1600, 48, 25)


def llama() -> DecoderConfig:
    """Llama's block (Touvron et al. 2023a, section 2.2) at the size of the small models here: the default without norms of
    queries and keys. Made to be compared with `qwen3` and `fast`."""
    return dataclasses.replace(qwen3(), query_key_norm="none", norm_epsilon=1e-5)


def _llama(vocabulary_size: int, width: int, layers: int, heads: int, hidden: int, **fields: Any) -> DecoderConfig:
    standard: dict[str, Any] = {
        "key_value_heads": heads,
        "head_width": width // heads,
        "query_key_norm": "none",
        "norm_epsilon": 1e-5,
        "initialisation": "normal",
    }
    return DecoderConfig(
        vocabulary_size=vocabulary_size,
        width=width,
        layers=layers,
        heads=heads,
        feed_forward_width=hidden,
        **standard | fields,
    )


def llama_2_7b() -> DecoderConfig:
    """Llama 2 of 7 billion parameters (Touvron et al. 2023b, table 1; config.json of Llama-2-7b-hf)."""
    return _llama(32_000, 4096, 32, 32, 11_008, context=4096)


def _llama_3(factor: float, width: int, layers: int, heads: int, hidden: int, **fields: Any) -> DecoderConfig:
    scaling = RopeScaling("llama3", factor, original_context=8192)
    common: dict[str, Any] = {"key_value_heads": 8, "context": 131_072, "rope_theta": 500_000.0}
    return _llama(128_256, width, layers, heads, hidden, rope_scaling=scaling, **common | fields)


def llama_3_1_8b() -> DecoderConfig:
    """Llama 3.1 of 8 billion parameters (Grattafiori et al. 2024, table 3; config.json of Llama-3.1-8B)."""
    return _llama_3(8.0, 4096, 32, 32, 14_336)


def llama_3_2_1b() -> DecoderConfig:
    """Llama 3.2 of 1.2 billion parameters (config.json and model card of Llama-3.2-1B)."""
    return _llama_3(32.0, 2048, 16, 32, 8192, tied_embeddings=True)


def llama_3_2_3b() -> DecoderConfig:
    """Llama 3.2 of 3.2 billion parameters (config.json and model card of Llama-3.2-3B)."""
    return _llama_3(32.0, 3072, 28, 24, 8192, tied_embeddings=True)


def qwen3() -> DecoderConfig:
    """Qwen3's block (Yang et al. 2025, section 2) at the size of the small models here: the default of pre-training."""
    return DecoderConfig(vocabulary_size=SMALL_VOCABULARY)


def _qwen3(width: int, layers: int, heads: int, hidden: int, tied: bool) -> DecoderConfig:
    return DecoderConfig(
        vocabulary_size=151_936,
        width=width,
        layers=layers,
        heads=heads,
        key_value_heads=8,
        head_width=128,
        feed_forward_width=hidden,
        context=40_960,
        rope_theta=1_000_000.0,
        tied_embeddings=tied,
        initialisation="normal",
    )


def qwen3_0_6b() -> DecoderConfig:
    """Qwen3 of 0.6 billion parameters (Yang et al. 2025, table 1; config.json of Qwen3-0.6B)."""
    return _qwen3(1024, 28, 16, 3072, tied=True)


def qwen3_1_7b() -> DecoderConfig:
    """Qwen3 of 1.7 billion parameters (Yang et al. 2025, table 1; config.json of Qwen3-1.7B)."""
    return _qwen3(2048, 28, 16, 6144, tied=True)


def qwen3_4b() -> DecoderConfig:
    """Qwen3 of 4 billion parameters (Yang et al. 2025, table 1; config.json of Qwen3-4B)."""
    return _qwen3(2560, 36, 32, 9728, tied=True)


def qwen3_8b() -> DecoderConfig:
    """Qwen3 of 8 billion parameters (Yang et al. 2025, table 1; config.json of Qwen3-8B)."""
    return _qwen3(4096, 36, 32, 12_288, tied=False)


def qwen3_14b() -> DecoderConfig:
    """Qwen3 of 14 billion parameters (Yang et al. 2025, table 1; config.json of Qwen3-14B)."""
    return _qwen3(5120, 40, 40, 17_408, tied=False)


def qwen3_32b() -> DecoderConfig:
    """Qwen3 of 32 billion parameters (Yang et al. 2025, table 1; config.json of Qwen3-32B)."""
    return _qwen3(5120, 64, 64, 25_600, tied=False)


def fast() -> DecoderConfig:
    """The fast profile, in the line of the modded-nanogpt speed runs: squared ReLU without a gate, a learnt vector for each
    token in every second layer's values, each block's input mixed with the embedded token, capped logits, projections into
    the residual stream zero at the start. No other program computes it, so its bundles stay here. In seconds of training
    only the scalars and the zeros pay (docs/architecture/README.md): it is meant for longer runs."""
    return dataclasses.replace(
        qwen3(),
        activation="relu_squared",
        gated=False,
        feed_forward_width=1024,
        value_embeddings=True,
        residual_scalars=True,
        logit_soft_cap=15.0,
    )


PRESETS: dict[str, Callable[[], DecoderConfig]] = {
    "gpt1": gpt1,
    "gpt2": gpt2,
    "gpt2-medium": gpt2_medium,
    "gpt2-large": gpt2_large,
    "gpt2-xl": gpt2_xl,
    "llama": llama,
    "llama-2-7b": llama_2_7b,
    "llama-3.1-8b": llama_3_1_8b,
    "llama-3.2-1b": llama_3_2_1b,
    "llama-3.2-3b": llama_3_2_3b,
    "qwen3": qwen3,
    "qwen3-0.6b": qwen3_0_6b,
    "qwen3-1.7b": qwen3_1_7b,
    "qwen3-4b": qwen3_4b,
    "qwen3-8b": qwen3_8b,
    "qwen3-14b": qwen3_14b,
    "qwen3-32b": qwen3_32b,
    "fast": fast,
}
"""Name -> the function whose docstring says what it is and where its numbers come from."""


def preset(name: str, **overrides: Any) -> DecoderConfig:
    """The config of that name, with single fields replaced. ConfigError for an unknown name or field, naming the nearest,
    and for values that no decoder can have."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}", where="decoder.preset", remedy=suggestion(name, list(PRESETS)))
    config = PRESETS[name]()
    fields = [field.name for field in dataclasses.fields(DecoderConfig)]
    for field in overrides:
        if field not in fields:
            raise ConfigError(f"unknown field {field!r}", where="decoder", remedy=suggestion(field, fields))
    return dataclasses.replace(config, **overrides)

"""Which rotary frequencies a config means.

Why beside the decoder: nn/rope_scaling.py holds the formulas and knows no config, the decoder holds the tables. Three of
the four ways of scaling change the frequencies once; with the dynamic way they depend on the length of the text, so that
its tables for texts beyond the original context are made when such a text comes. With a key-value cache those keys keep
the base of the time when they were written (as in transformers), and so beyond the original context, and only there, a
cached and an uncached forward of a dynamic model differ.
"""

from __future__ import annotations

import torch
from torch import Tensor

from duihua.models.config import DecoderConfig
from duihua.nn import rope_scaling
from duihua.nn.positions import angle_tables, rotary_frequencies


def fixed_tables(config: DecoderConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines for all places of the context, each (context, head_width), fp32. For dynamic scaling those of texts
    up to the original context."""
    frequencies, factor = rotary_frequencies(config.head_width, config.rope_theta, device), 1.0
    scaling = config.rope_scaling
    if scaling is not None:
        original = scaling.original_context or config.context
        if scaling.kind == "linear":
            frequencies = rope_scaling.linear(frequencies, scaling.factor)
        elif scaling.kind == "llama3":
            frequencies = rope_scaling.llama3(
                frequencies,
                scaling.factor,
                original,
                scaling.low_frequency_factor,
                scaling.high_frequency_factor,
            )
        elif scaling.kind == "yarn":
            frequencies = rope_scaling.yarn(
                frequencies,
                config.rope_theta,
                scaling.factor,
                original,
                scaling.beta_fast,
                scaling.beta_slow,
                scaling.truncate,
            )
            factor = (
                rope_scaling.yarn_attention_factor(scaling.factor, scaling.mscale, scaling.mscale_all_dim)
                if scaling.attention_factor is None
                else scaling.attention_factor
            )
    return angle_tables(torch.arange(config.context, device=device), frequencies, factor)


def original_context(config: DecoderConfig) -> int:
    """The longest text that needs no tables of its own: the whole context, unless the scaling is dynamic."""
    scaling = config.rope_scaling
    if scaling is None or scaling.kind != "dynamic":
        return config.context
    return scaling.original_context or config.context


def grown_tables(config: DecoderConfig, positions_bt: Tensor) -> tuple[Tensor, Tensor]:
    """Tables (b, t, e) of dynamic scaling, where each row's base follows from its own length, so that the rows of a batch
    do not change each other."""
    scaling = config.rope_scaling
    assert scaling is not None and scaling.kind == "dynamic"
    lengths_b1 = positions_bt.max(dim=1, keepdim=True).values + 1
    bases_b1 = rope_scaling.dynamic_bases(
        config.rope_theta, config.head_width, scaling.factor, original_context(config), lengths_b1
    )
    exponents = torch.arange(0, config.head_width, 2, dtype=torch.float32, device=positions_bt.device)
    return angle_tables(positions_bt, 1.0 / bases_b1 ** (exponents / config.head_width))

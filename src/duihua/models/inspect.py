"""What a model consists of: each parameter with its shape, adding up exactly to the total, and what it takes in memory.

Why each group counts `layers` copies: the blocks of a decoder are alike, so a table of one block says all, and the sum is
still exact, because groups are made of what the network really holds, not of a formula. A tied matrix counts once.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from duihua.models.config import DecoderConfig


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters of one name and shape over all blocks. name: with `*` for the block's number."""

    name: str
    shape: tuple[int, ...]
    copies: int
    parameters: int
    """In all copies."""
    share: float
    """Of the total."""


@dataclass(frozen=True)
class Memory:
    """Bytes. Weights in two forms; the key-value cache of one token and of one full context, in fp32; and the least that
    training takes for weights, gradients and AdamW's two moments in fp32 (activations come on top)."""

    weights_float32: int
    weights_bfloat16: int
    cache_per_token: int
    cache_full_context: int
    training_float32: int


@dataclass(frozen=True)
class Inspection:
    """The parameter table, its total and the memory."""

    groups: list[ParameterGroup]
    total: int
    memory: Memory

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def inspect_network(network: nn.Module, config: DecoderConfig) -> Inspection:
    """Group the distinct parameters of a `Decoder` or `ScoredDecoder`, in the order of the forward pass."""
    sizes: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    total = 0
    for name, weight in network.named_parameters():  # a tied matrix comes once, under its first name
        pattern = re.sub(r"(^|\.)blocks\.\d+\.", r"\1blocks.*.", name.removeprefix("decoder."))
        sizes.setdefault((pattern, tuple(weight.shape)), []).append(weight.numel())
        total += weight.numel()
    groups = [
        ParameterGroup(name, shape, len(counts), sum(counts), sum(counts) / total)
        for (name, shape), counts in sizes.items()
    ]
    assert sum(group.parameters for group in groups) == total
    cache = 4 * 2 * config.layers * config.key_value_heads * config.head_width
    return Inspection(groups, total, Memory(4 * total, 2 * total, cache, cache * config.context, 16 * total))

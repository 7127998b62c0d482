"""How much work a token is, for training and for generation, and how many bytes a generated token moves.

The backward pass of a product is two products of the same size, one for each factor's gradient, so training is three
forward passes; with gradient checkpointing every block is computed once more, up to the last tensor that a gradient
needs, so that its last product is left out where neither norm nor dropout follows. The rule of thumb 6 N (Kaplan et al.
2020, section 2.1), six operations for each parameter, stands beside the count: it leaves attention out and counts
look-up tables as if they were multiplied.

Generation of one stream reads every weight and the whole cache for one token, which is why the memory's speed and not
the processor's decides there (Shazeer 2019, section 2.3), and why a batch of streams is cheaper for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from duihua.models.imagined import trunk
from duihua.models.trace import Layer, attention_flops


@dataclass(frozen=True)
class Flops:
    """Operations for each token of rows of `length` tokens, on average.

    blocks: products with the matrices inside the blocks. head: with the output layers. attention: scores and weighted
    sums under the causal mask. attention_unmasked: the same for a kernel that computes the whole square. six_n: 6 for
    each parameter.
    """

    length: int
    blocks: float
    head: float
    attention: float
    attention_unmasked: float
    forward: float
    training: float
    training_checkpointed: float
    six_n: float

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Generation:
    """One more token for one stream with `length` tokens in its cache: operations, and bytes read at each width of a
    stored number (weights and cache alike). cache_bytes: of one token of one stream."""

    length: int
    flops: float
    bytes_read: dict[str, int]
    cache_bytes: dict[str, int]

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


WIDTHS = {"float32": 4, "bfloat16": 2}
"""Bytes of a stored number; float16 takes as many as bfloat16."""


def count_flops(network: nn.Module, layers: Sequence[Layer], batch: int, time: int) -> Flops:
    """The work of a token in a forward traced with (batch, time) token ids."""
    parameters = sum(layer.parameters * layer.copies for layer in layers)
    config = trunk(network).config
    tokens = batch * time
    attention = config.layers * attention_flops(config.heads, config.head_width, time * (time + 1) // 2) / time
    in_blocks = sum(layer.flops * layer.copies for layer in layers if layer.name.startswith("blocks.")) / tokens
    forward = sum(layer.flops * layer.copies for layer in layers) / tokens
    last = [layer for layer in layers if layer.name.endswith("feed_forward.down")]
    needed = config.norm_place == "post" or config.residual_dropout > 0
    spared = 0.0 if needed else sum(layer.flops * layer.copies for layer in last) / tokens
    return Flops(
        length=time,
        blocks=in_blocks - attention,
        head=forward - in_blocks,
        attention=attention,
        attention_unmasked=config.layers * attention_flops(config.heads, config.head_width, time),
        forward=forward,
        training=3 * forward,
        training_checkpointed=3 * forward + in_blocks - spared,
        six_n=6 * parameters,
    )


def count_generation(network: nn.Module, flops: Flops) -> Generation:
    """What one token costs a policy whose stream holds `flops.length` tokens."""
    decoder = trunk(network)
    config = decoder.config
    tables = [module for module in decoder.modules() if isinstance(module, nn.Embedding)]
    multiplied = sum(weight.numel() for weight in decoder.parameters()) - sum(table.weight.numel() for table in tables)
    if decoder.head.weight is decoder.embedding.weight:
        multiplied += decoder.head.weight.numel()
    looked_up = sum(table.embedding_dim for table in tables)
    cached = 2 * config.layers * config.key_value_heads * config.head_width
    attention = config.layers * attention_flops(config.heads, config.head_width, flops.length)
    numbers = multiplied + looked_up + cached * flops.length
    return Generation(
        length=flops.length,
        flops=flops.blocks + flops.head + attention,
        bytes_read={name: width * numbers for name, width in WIDTHS.items()},
        cache_bytes={name: width * cached for name, width in WIDTHS.items()},
    )

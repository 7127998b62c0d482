"""How much work training a decoder is, by formula: no network and no torch needed.

models/flops.py counts the same by running the network, which takes a second; a test holds both equal.
"""

from __future__ import annotations

from duihua.models.config import DecoderConfig


def multiplying_weights(shape: DecoderConfig) -> int:
    """Weights that are multiplied with every token: the matrices of the blocks and the head. Not the embedding, a look-up."""
    block = shape.width * shape.head_width * 2 * (shape.heads + shape.key_value_heads)
    block += (3 if shape.gated else 2) * shape.width * shape.feed_forward_width
    return shape.layers * block + shape.width * shape.vocabulary_size


def training_flops(shape: DecoderConfig, tokens: float) -> float:
    """Matrix-product work of training on `tokens`: 6 for each weight that multiplies, and attention's own (causal half).

    The count of Chowdhery et al. 2022 (PaLM, appendix B), with a query multiplied by the (t + 1) / 2 keys that the mask lets it
    see on average.
    """
    attention = 6 * shape.layers * shape.heads * shape.head_width * (shape.context + 1)
    return float(tokens) * (6 * multiplying_weights(shape) + attention)

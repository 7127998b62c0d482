"""What pre-training begins with: random weights, or embedding and head from what follows what in the text.

Its own file because three ask for it: the stage, the dial, which must know what counting costs before it promises minutes,
and the benchmarks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from duihua import console
from duihua.data.shards import Shard
from duihua.models.bigram_start import Bigrams, count_bigrams, start_from_bigrams
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.stages.configs.pretrain import PretrainConfig


def bigrams_of(shards: Sequence[Shard], repeats: Sequence[float], vocabulary_size: int) -> Bigrams:
    """The neighbours counted in all sources, each as often as it is read."""
    parts = [(shard.ids, repeat) for shard, repeat in zip(shards, repeats, strict=True)]
    return count_bigrams(parts, vocabulary_size)


def fresh_network(
    config: PretrainConfig,
    shape: DecoderConfig,
    shards: Sequence[Shard],
    repeats: Sequence[float],
    seed: int,
    counted: Bigrams | None = None,
) -> tuple[Decoder, float]:
    """A decoder with its first weights, and the loss in nats that training should begin at. counted: `bigrams_of` these shards,
    where that has been done already."""
    network = Decoder(shape).initialise(seed)
    if config.start == "random":
        return network, math.log(shape.vocabulary_size)
    bigrams = counted or bigrams_of(shards, repeats, shape.vocabulary_size)
    first_loss = start_from_bigrams(network, bigrams, smoothing=config.bigram_smoothing, seed=seed)
    console.say(f"pretrain: starts from {len(bigrams.counts):,} counted bigrams, at a loss of about {first_loss:.2f}")
    return network, first_loss

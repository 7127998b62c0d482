from __future__ import annotations

import pytest

from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.models.heads import ScoredDecoder
from duihua.models.inspect import inspect_network

CONFIG = DecoderConfig(
    vocabulary_size=10,
    width=4,
    layers=3,
    heads=2,
    key_value_heads=1,
    head_width=2,
    feed_forward_width=5,
    context=7,
)
# query 4x4, key and value 2x4, output 4x4, two head norms of 2, two norms of 4, three feed-forward matrices of 5x4
BLOCK = 16 + 8 + 8 + 16 + 2 + 2 + 4 + 4 + 60


def tied() -> DecoderConfig:
    return DecoderConfig(**(vars(CONFIG) | {"tied_embeddings": True}))


@pytest.mark.parametrize(("config", "heads"), [(CONFIG, 40), (tied(), 0)])
def test_the_table_adds_up_to_the_count_by_hand(config: DecoderConfig, heads: int) -> None:
    found = inspect_network(Decoder(config), config)
    assert found.total == 40 + 3 * BLOCK + 4 + heads
    assert sum(group.parameters for group in found.groups) == found.total
    assert sum(group.share for group in found.groups) == pytest.approx(1.0)
    for group in found.groups:
        size = group.copies
        for length in group.shape:
            size *= length
        assert group.parameters == size


def test_blocks_are_one_group_each_with_a_copy_a_layer() -> None:
    groups = {group.name: group for group in inspect_network(Decoder(CONFIG), CONFIG).groups}
    assert groups["blocks.*.attention.query.weight"].copies == 3
    assert groups["blocks.*.attention.query.weight"].shape == (4, 4)
    assert groups["final_norm.weight"].copies == 1


def test_a_reward_model_shows_its_score() -> None:
    found = inspect_network(ScoredDecoder(Decoder(CONFIG)), CONFIG)
    assert [group.shape for group in found.groups if group.name == "score.weight"] == [(1, 4)]


def test_memory_by_hand() -> None:
    found = inspect_network(Decoder(CONFIG), CONFIG)
    assert found.memory.weights_float32 == 4 * found.total
    assert found.memory.cache_per_token == 3 * 2 * 1 * 2 * 4  # layers, key and value, one head of 2, four bytes
    assert found.memory.cache_full_context == 7 * found.memory.cache_per_token

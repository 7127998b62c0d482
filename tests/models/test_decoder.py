"""One network, several ways to compute it: cached, padded, packed, tied."""

from __future__ import annotations

import math

import pytest
import torch

from duihua.errors import ConfigError, GenerationError
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder, parameter_count
from duihua.models.heads import ScoredDecoder
from duihua.nn.losses import cross_entropy_sum

CONFIG = DecoderConfig(
    vocabulary_size=97, width=32, layers=2, heads=4, key_value_heads=2, head_width=8, feed_forward_width=48, context=40
)


@pytest.fixture
def network() -> Decoder:
    torch.manual_seed(0)
    made = Decoder(CONFIG).eval()
    for weight in made.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.2)
    return made


def test_cached_equals_uncached_in_any_slot_order_and_stale_slots_are_unseen(network: Decoder) -> None:
    x = torch.randint(0, 97, (3, 20))
    full = network(x)
    cache = network.new_cache(5, 30)
    cache.keys.normal_()
    cache.values.normal_()  # what an earlier sequence left behind
    rows = torch.tensor([4, 0, 2])
    parts = [network(x[:, :9], positions_bt=torch.arange(9).expand(3, 9), cache=cache, rows_b=rows)]
    for t in range(9, 20):
        parts.append(network(x[:, t : t + 1], positions_bt=torch.full((3, 1), t), cache=cache, rows_b=rows))
    assert (torch.cat(parts, dim=1) - full).abs().max() < 1e-4
    wrong = network(x[:, 19:], positions_bt=torch.full((3, 1), 18), cache=cache, rows_b=rows)
    assert (wrong - full[:, 19:]).abs().max() > 1e-2


def test_prompts_of_different_lengths_share_a_right_padded_prefill(network: Decoder) -> None:
    x = torch.randint(0, 97, (2, 12))
    cache = network.new_cache(2)
    network(x[:, :8], positions_bt=torch.arange(8).expand(2, 8), cache=cache)  # row 1 really has 5 tokens, 3 are pads
    lengths = torch.tensor([[8], [5]])
    tokens = torch.stack((x[0, 8:9], x[1, 5:6]))
    step = network(tokens, positions_bt=lengths, cache=cache)
    assert (step[0] - network(x[:1, :9])[0, -1:]).abs().max() < 1e-4
    assert (step[1] - network(x[1:, :6])[0, -1:]).abs().max() < 1e-4


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_equals_unpadded(network: Decoder, side: str) -> None:
    x = torch.randint(1, 97, (1, 11))
    pad, ones = torch.zeros(1, 6, dtype=torch.long), torch.ones(1, 11, dtype=torch.long)
    both = (pad, x) if side == "left" else (x, pad)
    masks = (pad, ones) if side == "left" else (ones, pad)
    padded = network(torch.cat(both, 1), attention_mask_bt=torch.cat(masks, 1))
    real = padded[:, 6:] if side == "left" else padded[:, :11]
    assert (real - network(x)).abs().max() < 1e-4
    assert not padded.isnan().any()
    if side == "left":
        assert (network(torch.cat(both, 1))[:, 6:] - network(x)).abs().max() > 1e-2


def test_packed_documents_do_not_see_each_other(network: Decoder) -> None:
    a, b = torch.randint(0, 97, (1, 7)), torch.randint(0, 97, (1, 5))
    segments = torch.tensor([[0] * 7 + [1] * 5])
    positions = torch.cat((torch.arange(7), torch.arange(5)))[None]
    packed = network(torch.cat((a, b), 1), positions_bt=positions, segments_bt=segments)
    assert (packed[:, :7] - network(a)).abs().max() < 1e-4
    assert (packed[:, 7:] - network(b)).abs().max() < 1e-4
    assert (network(torch.cat((a, b), 1))[:, 7:] - network(b)).abs().max() > 1e-2


def test_the_first_loss_is_the_logarithm_of_the_vocabulary() -> None:
    network = Decoder(CONFIG).initialise(3)
    x = torch.randint(0, 97, (8, 20))
    total, _ = cross_entropy_sum(network.hidden(x[:, :-1]), network.head.weight, x[:, 1:], torch.ones(8, 19))
    assert float(total.detach()) / (8 * 19) == pytest.approx(math.log(97), abs=0.02)


def test_the_seed_alone_decides_the_weights() -> None:
    torch.manual_seed(1)
    first = Decoder(CONFIG).initialise(3).state_dict()
    torch.manual_seed(2)
    second = Decoder(CONFIG).initialise(3).state_dict()
    other = Decoder(CONFIG).initialise(4).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_parameters_add_up_by_hand() -> None:
    attention = 32 * 32 * 2 + 2 * 32 * 16 + 2 * 8
    block = attention + 3 * 32 * 48 + 2 * 32
    assert parameter_count(Decoder(CONFIG)) == 2 * 97 * 32 + 2 * block + 32


def test_text_longer_than_the_context_is_refused(network: Decoder) -> None:
    with pytest.raises(GenerationError, match="41 tokens are longer than the context of 40"):
        network(torch.zeros(1, 41, dtype=torch.long))


def test_heads_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(ConfigError, match="key_value_heads"):
        DecoderConfig(vocabulary_size=10, heads=4, key_value_heads=3)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_score_is_read_at_the_last_real_token(side: str) -> None:
    torch.manual_seed(0)
    scored = ScoredDecoder(Decoder(CONFIG).initialise(0)).initialise_score(1).eval()
    x = torch.randint(1, 97, (1, 6))
    alone = scored.last_score(x, torch.ones_like(x))
    pad = torch.zeros(1, 3, dtype=torch.long)
    ids = torch.cat((pad, x) if side == "left" else (x, pad), 1)
    mask = torch.cat((pad, torch.ones_like(x)) if side == "left" else (torch.ones_like(x), pad), 1)
    assert torch.allclose(scored.last_score(ids, mask), alone, atol=1e-5)
    if side == "right":
        assert not torch.allclose(scored(ids)[:, -1], alone, atol=1e-3)

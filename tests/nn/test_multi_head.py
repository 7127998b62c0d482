from __future__ import annotations

import pytest
import torch
from torch import nn

from duihua.nn.multi_head import GROWTH, CrossAttention, SelfAttention, StepCache, attention_weights

WIDTH, HEADS = 16, 4


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


def random_weights(module: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5)


def self_attention() -> tuple[SelfAttention, nn.MultiheadAttention]:
    ours, theirs = SelfAttention(WIDTH, HEADS, True, 0.0), nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    random_weights(ours)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.query_key_value.weight)
        theirs.in_proj_bias.copy_(ours.query_key_value.bias)
        theirs.out_proj.load_state_dict(ours.output.state_dict())
    return ours, theirs


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_is_torchs_multi_head_attention(causal: bool) -> None:
    ours, theirs = self_attention()
    x = torch.randn(2, 5, WIDTH)
    record: list[torch.Tensor] = []
    forbidden = torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None
    expected, weights = theirs(x, x, x, attn_mask=forbidden, average_attn_weights=False)
    torch.testing.assert_close(ours(x, causal=causal, record=record), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(record[0], weights, atol=1e-6, rtol=0)
    control = ours(x, causal=not causal)
    assert (control - expected).abs().max() > 1e-2


def test_heads_that_are_joined_in_the_wrong_order_are_noticed() -> None:
    ours, theirs = self_attention()
    x = torch.randn(2, 5, WIDTH)
    expected, _ = theirs(x, x, x)
    split = ours.query_key_value(x).view(2, 5, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
    heads = nn.functional.scaled_dot_product_attention(*split)  # (b, h, t, e)
    right, scrambled = heads.transpose(1, 2).reshape(2, 5, WIDTH), heads.reshape(2, 5, WIDTH)
    torch.testing.assert_close(ours.output(right), expected, atol=1e-5, rtol=0)
    assert (ours.output(scrambled) - expected).abs().max() > 1e-1


def test_cross_attention_is_torchs_multi_head_attention_with_a_padding_mask() -> None:
    ours, theirs = CrossAttention(WIDTH, HEADS, True, 0.0), nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    random_weights(ours)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat((ours.query.weight, ours.key_value.weight)))
        theirs.in_proj_bias.copy_(torch.cat((ours.query.bias, ours.key_value.bias)))
        theirs.out_proj.load_state_dict(ours.output.state_dict())
    x, memory = torch.randn(2, 3, WIDTH), torch.randn(2, 6, WIDTH)
    real = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]).bool()
    record: list[torch.Tensor] = []
    expected, weights = theirs(x, memory, memory, key_padding_mask=~real, average_attn_weights=False)
    found = ours(x, ours.keys_values(memory), real[:, None, None], record)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(record[0], weights, atol=1e-6, rtol=0)
    assert torch.equal(record[0][1, :, :, 3:], torch.zeros(HEADS, 3, 3))
    unmasked = ours(x, ours.keys_values(memory))
    torch.testing.assert_close(unmasked[0], expected[0], atol=1e-5, rtol=0)
    assert (unmasked[1] - expected[1]).abs().max() > 1e-2


def test_asking_for_the_weights_changes_no_bit_of_the_output() -> None:
    ours, _ = self_attention()
    x = torch.randn(2, 5, WIDTH)
    assert torch.equal(ours(x), ours(x, record=[]))


def test_a_row_that_may_see_nothing_has_weights_of_zero_and_no_nan() -> None:
    ours, _ = self_attention()
    x = torch.randn(2, 5, WIDTH, requires_grad=True)
    mask = torch.tensor([[True] * 5, [False] * 5])[:, None, None]
    record: list[torch.Tensor] = []
    found = ours(x, mask, record=record)
    found.sum().backward()
    assert torch.isfinite(found).all() and x.grad is not None and torch.isfinite(x.grad).all()
    assert torch.equal(record[0][1], torch.zeros(HEADS, 5, 5))
    torch.testing.assert_close(record[0][0].sum(-1), torch.ones(HEADS, 5))
    naive = torch.full((1, 5), -torch.inf).softmax(-1)
    assert naive.isnan().all()


def test_weights_of_a_hand_case() -> None:
    query, key = torch.tensor([[[[2.0, 0.0, 0.0, 0.0]]]]), torch.tensor([[[[0.0] * 4, [3.0, 0.0, 0.0, 0.0]]]])
    weights = attention_weights(query, key, None)  # scores 0 and 2 * 3 / sqrt(4) = 3
    assert weights[0, 0, 0, 1].item() == pytest.approx(1 / (1 + 2.718281828**-3), abs=1e-6)


def test_steps_with_a_cache_that_grows_are_one_causal_pass() -> None:
    ours, _ = self_attention()
    length = 2 * GROWTH + 3
    x = torch.randn(3, length, WIDTH)
    expected = ours(x, causal=True)
    cache = StepCache(3, 2, WIDTH, 200, x)
    for place in range(length):
        found = ours.step(x[:, place], cache, 1)
        cache.advance()
        torch.testing.assert_close(found, expected[:, place], atol=1e-4, rtol=0)


def test_a_reordered_cache_goes_on_from_the_other_rows() -> None:
    ours, _ = self_attention()
    x, order = torch.randn(4, 6, WIDTH), torch.tensor([1, 1, 3])
    for reordered in (True, False):
        cache = StepCache(4, 1, WIDTH, 10, x)
        for place in range(5):
            ours.step(x[:, place], cache, 0)
            cache.advance()
        cache.reorder(order if reordered else torch.arange(3))
        found = ours.step(x[order, 5], cache, 0)
        right = torch.allclose(found, ours(x, causal=True)[order, 5], atol=1e-5)
        assert right == reordered and cache.rows == 3

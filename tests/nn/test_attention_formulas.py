"""Attention against the formula in float64, with its weights, and against torch's own multi-head attention."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from duihua.models.capture import captured
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.nn.attention import AttentionPlan, CausalSelfAttention
from duihua.nn.multi_head import attention_weights

WIDTH, HEADS, TIME = 24, 4, 7


def scaled_dot_product(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Equation 1 of Vaswani et al. 2017 number by number in float64: (t, e) each -> results (t, e), weights (t, t)."""
    rows, weights = [], torch.zeros(len(query), len(key), dtype=torch.float64)
    for t, q in enumerate(query.double()):
        seen = range(t + 1 if causal else len(key))
        powers = [math.exp(float(q @ key[s].double()) * scale) for s in seen]
        for s in seen:
            weights[t, s] = powers[s] / sum(powers)
        rows.append(sum(weights[t, s] * value[s].double() for s in seen))
    return torch.stack([torch.as_tensor(row) for row in rows]), weights


def gpt_layer() -> CausalSelfAttention:
    torch.manual_seed(0)
    layer = CausalSelfAttention(WIDTH, HEADS, HEADS, WIDTH // HEADS, 1e-6, query_key_norm="none", bias=True)
    for weight in layer.parameters():
        nn.init.normal_(weight, std=0.4)
    return layer


def theirs(layer: CausalSelfAttention) -> nn.MultiheadAttention:
    """torch's module with the same numbers."""
    other = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    with torch.no_grad():
        other.in_proj_weight.copy_(torch.cat((layer.query.weight, layer.key.weight, layer.value.weight)))
        other.in_proj_bias.copy_(torch.cat((layer.query.bias, layer.key.bias, layer.value.bias)))
        other.out_proj.load_state_dict(layer.output.state_dict())
    return other


@pytest.mark.parametrize("causal", [True, False])
def test_scaled_dot_product_and_its_weights_equal_the_formula_in_float64(causal: bool) -> None:
    query, key, value = torch.randn(3, TIME, 8, generator=torch.Generator().manual_seed(1)).unbind(0)
    expected, weights = scaled_dot_product(query, key, value, causal, 8**-0.5)
    found = attention_weights(query[None, None], key[None, None], None, causal)[0, 0]
    assert (found - weights).abs().max() < 1e-6
    assert (found.sum(dim=-1) - 1).abs().max() < 1e-6
    assert (found @ value - expected).abs().max() < 1e-5
    fused = nn.functional.scaled_dot_product_attention(*(x[None] for x in (query, key, value)), is_causal=causal)
    assert (fused[0] - expected).abs().max() < 1e-5
    unscaled, _ = scaled_dot_product(query, key, value, causal, 1.0)
    assert (found @ value - unscaled).abs().max() > 0.1  # control: a forgotten division by sqrt(e)


def test_multi_head_attention_equals_that_of_torch_in_output_and_weights() -> None:
    layer, x = gpt_layer(), torch.randn(2, TIME, WIDTH, generator=torch.Generator().manual_seed(2))
    above = torch.ones(TIME, TIME, dtype=torch.bool).triu(1)
    with torch.no_grad(), captured(layer) as inside:
        ours = layer(x, AttentionPlan(), 0)
        expected, weights = theirs(layer)(x, x, x, attn_mask=above, average_attn_weights=False)
        unmasked, _ = theirs(layer)(x, x, x)
    assert (ours - expected).abs().max() < 1e-5
    assert (inside.attention[0].weights() - weights).abs().max() < 1e-6
    assert (ours - unmasked).abs().max() > 1e-2  # controls: without the mask, and with two heads exchanged
    assert (inside.attention[0].weights() - weights[:, [1, 0, 2, 3]]).abs().max() > 1e-2


def test_weights_above_the_diagonal_are_exactly_zero_and_rows_add_up_to_one() -> None:
    layer, x = gpt_layer(), torch.randn(2, TIME, WIDTH, generator=torch.Generator().manual_seed(2))
    with torch.no_grad(), captured(layer) as inside:
        layer(x, AttentionPlan(), 0)
    weights = inside.attention[0].weights()
    assert not weights.triu(1).any()
    assert (weights.tril() > 0).sum() == 2 * HEADS * TIME * (TIME + 1) // 2
    assert (weights.sum(dim=-1) - 1).abs().max() < 1e-6
    large_negative = (inside.attention[0].scores() - 5 * (1 - torch.ones(TIME, TIME).tril())).softmax(dim=-1)
    assert large_negative.triu(1).any()  # control: a large negative number is not minus infinity


def test_a_mask_broadcasts_over_sequences_and_heads() -> None:
    query, key = torch.randn(2, 3, HEADS, TIME, 6, generator=torch.Generator().manual_seed(4)).unbind(0)
    triangle = torch.ones(TIME, TIME, dtype=torch.bool).tril()
    small = attention_weights(query, key, triangle)
    assert torch.equal(small, attention_weights(query, key, triangle.expand(3, HEADS, TIME, TIME).clone()))
    assert torch.equal(small, attention_weights(query, key, None, causal=True))
    padding = torch.ones(3, 1, 1, TIME, dtype=torch.bool)
    padding[1, ..., 5:] = False
    both = attention_weights(query, key, padding, causal=True)
    assert not both[1, :, :, 5:].any() and both[0, :, :, 5:].any()


def test_a_row_that_sees_nothing_gives_no_nan_in_outputs_or_gradients() -> None:
    """Left pads under the causal mask: the first rows may look at no real token."""
    shape = {"width": 16, "layers": 2, "heads": 2, "key_value_heads": 2, "head_width": 8, "feed_forward_width": 24}
    network = Decoder(DecoderConfig(vocabulary_size=20, **shape, context=16, initialisation="normal")).initialise(1)  # type: ignore[arg-type]
    ids = torch.tensor([[0, 0, 0, 5, 6, 7], [1, 2, 3, 4, 5, 6]])
    mask = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    logits = network(ids, attention_mask_bt=mask)
    nn.functional.cross_entropy(logits[:, 3:5].flatten(0, 1), ids[:, 4:].flatten()).backward()
    assert logits.isfinite().all()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())
    # control: under the bare softmax of the same mask, not even a loss over the real rows alone has finite gradients
    value = torch.randn(6, 8, requires_grad=True)
    seen = torch.ones(6, 6, dtype=torch.bool).tril() & mask[0].bool()
    weights = torch.randn(6, 6).masked_fill(~seen, -torch.inf).softmax(dim=-1)
    (weights @ value)[3:].sum().backward()
    assert weights.isnan().any() and value.grad is not None and value.grad.isnan().any()

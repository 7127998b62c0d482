"""Attention by whole matrices against torch's fused kernel, values and gradients, and where it is used."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from duihua.models.activations import count_activations
from duihua.models.capture import captured
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder
from duihua.nn import whole_attention
from duihua.nn.attention import AttentionPlan, CausalSelfAttention
from duihua.nn.products import bf16_is_native, products_by

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch carries no oneDNN")
fused = torch.nn.functional.scaled_dot_product_attention


def made(heads: int, groups: int, time: int = 96, length: int = 96, batch: int = 3) -> list[Tensor]:
    """Query, key, value and a gradient, features of 32."""
    generator = torch.Generator().manual_seed(0)
    shapes = [
        (batch, heads, time, 32),
        (batch, groups, length, 32),
        (batch, groups, length, 32),
        (batch, heads, time, 32),
    ]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def both(attend: object, given: list[Tensor]) -> list[Tensor]:
    """The result and the gradients of the three."""
    inputs = [one.clone().requires_grad_() for one in given[:3]]
    y = attend(*inputs)  # type: ignore[operator]
    return [y.detach(), *torch.autograd.grad(y, inputs, given[3].to(y.dtype))]


def gap(found: list[Tensor], expected: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("masked", ["causal", "shared", "by row", "fewer queries"])
def test_it_equals_the_fused_kernel(heads: int, groups: int, masked: str) -> None:
    given = made(heads, groups, time=40 if masked == "fewer queries" else 96)
    mask = None
    if masked != "causal":
        rows = 1 if masked == "shared" else 3
        mask = torch.rand(rows, 1, given[0].shape[2], 96, generator=torch.Generator().manual_seed(1)) > 0.4
        mask[..., 0] = True
    expected = both(lambda q, k, v: fused(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True), given)
    with products_by("onednn"):
        assert gap(both(lambda q, k, v: whole_attention.attend(q, k, v, mask), given), expected) < 1e-5
        unscaled = both(lambda q, k, v: whole_attention.attend(q * 32**0.5, k, v, mask), given)
        assert gap(unscaled, expected) > 0.1


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [one.bfloat16() for one in made(4, 2)]
    whole = both(lambda q, k, v: whole_attention.attend(q, k, v, None), given)
    monkeypatch.setattr(whole_attention, "CHUNK", 1)
    assert gap(both(lambda q, k, v: whole_attention.attend(q, k, v, None), given), whole) < 0.02


def test_in_bf16_it_is_about_as_near_to_fp32_as_the_fused_kernel_is() -> None:
    given = made(6, 2)
    exact = both(lambda q, k, v: fused(q, k, v, is_causal=True, enable_gqa=True), given)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = both(lambda q, k, v: fused(q, k, v, is_causal=True, enable_gqa=True), given)
        mine = both(lambda q, k, v: whole_attention.attend(q, k, v, None), given)
    assert mine[0].dtype is torch.bfloat16
    assert gap(mine, exact) < 2 * gap(theirs, exact)
    assert gap(mine, exact) < 0.05


def test_the_backward_pass_keeps_the_format_of_the_forward_pass_whatever_autocast_says_then() -> None:
    given = made(4, 2)
    inputs = [one.clone().requires_grad_() for one in given[:3]]
    found = []
    for short in (False, True):
        y = whole_attention.attend(*inputs, None)
        with torch.autocast("cpu", torch.bfloat16, enabled=short):
            found.append(torch.autograd.grad(y, inputs, given[3]))
    assert all(torch.equal(left, right) for left, right in zip(*found, strict=True))


def test_a_query_that_may_look_nowhere_gives_numbers() -> None:
    given = made(4, 2)
    mask = torch.ones(3, 1, 96, 96, dtype=torch.bool).tril()
    mask[1, :, 5] = False
    found = both(lambda q, k, v: whole_attention.attend(q, k, v, mask), given)
    assert all(bool(one.isfinite().all()) for one in found)
    torch.testing.assert_close(found[0][1, 0, 5], given[2][1, 0].mean(0), atol=1e-5, rtol=0.0)


def test_it_is_used_while_gradients_are_wanted_in_rows_that_fit() -> None:
    query, key, _, _ = made(6, 2, 320, 320)
    with products_by("onednn"):
        assert whole_attention.fits(query, key, 0.0)
        assert not whole_attention.fits(query, key, 0.1)
        assert not whole_attention.fits(query[:, :, :1], key[:, :, :20], 0.0)  # one token: nothing to win
        long = torch.empty(1, 1, 1025, 32)
        assert not whole_attention.fits(long, long, 0.0)
        with torch.no_grad():
            assert not whole_attention.fits(query, key, 0.0)
        with torch.autocast("cpu", torch.bfloat16):
            assert whole_attention.fits(query, key, 0.0) == bf16_is_native()
    with products_by("torch"):
        assert not whole_attention.fits(query, key, 0.0)


def test_a_layer_gives_the_same_either_way() -> None:
    torch.manual_seed(0)
    layer = CausalSelfAttention(64, 4, 2, 32, 1e-6)
    x = torch.randn(2, 448, 64)
    found = {}
    for name in ("torch", "onednn"):
        with products_by(name):  # type: ignore[arg-type]
            layer.zero_grad()
            y = layer(x, AttentionPlan(), 0)
            y.square().sum().backward()
            found[name] = [
                y.detach(),
                *(weight.grad.clone() for weight in layer.parameters() if weight.grad is not None),
            ]
    assert len(found["torch"]) == 7
    assert gap(found["onednn"], found["torch"]) < 1e-3


def test_who_looks_inside_still_sees_the_attention() -> None:
    layer = CausalSelfAttention(64, 4, 2, 32, 1e-6)
    with products_by("onednn"), captured(layer) as seen:
        layer(torch.randn(2, 448, 64), AttentionPlan(), 0)
    assert [tuple(one.weights().shape) for one in seen.attention] == [(2, 4, 448, 448)]


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_nothing_imagined_is_left_behind_for_a_real_step(precision: torch.dtype | None) -> None:
    shape = DecoderConfig(
        vocabulary_size=50,
        width=64,
        layers=1,
        heads=4,
        key_value_heads=2,
        head_width=32,
        feed_forward_width=64,
        context=448,
    )
    decoder = Decoder(shape).initialise(1)
    ids = torch.arange(896).view(2, 448) % 50
    with products_by("onednn"):
        for _ in range(2):
            kept = count_activations(decoder, 2, 448, precision)
            with torch.autocast("cpu", precision, enabled=precision is not None):
                decoder.hidden(ids).square().mean().backward()
    with products_by("torch"):
        less = count_activations(decoder, 2, 448)
    if precision is None:
        rows = 2 * 4 * 448  # torch's own kernel keeps one number of each, this way its weights
        assert kept.plain - less.plain == 4 * rows * (448 - 1)

"""Layers against formulas in float64 and against torch's own."""

from __future__ import annotations

import math

import pytest
import torch

from duihua.nn.attention import AttentionPlan, CausalSelfAttention
from duihua.nn.norms import RMSNorm
from duihua.nn.positions import angle_tables, rotary_frequencies, rotate


def attention_by_hand(layer: CausalSelfAttention, x: torch.Tensor, scale: float | None = None) -> torch.Tensor:
    """Equation 1 of Vaswani et al. in float64, head by head, position by position."""
    x = x.double()
    weights = {name: weight.double() for name, weight in layer.state_dict().items()}
    time, e = x.shape[1], layer.head_width
    share = layer.heads // layer.key_value_heads
    scale = 1 / math.sqrt(e) if scale is None else scale
    angles = torch.outer(torch.arange(time).double(), 100.0 ** (-torch.arange(0, e, 2).double() / e))

    def head(name: str, index: int, norm: str | None) -> torch.Tensor:
        y = x[0] @ weights[f"{name}.weight"][index * e : (index + 1) * e].T
        if norm is None:
            return y
        y = y / (y.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weights[f"{norm}.weight"]
        first, second = y[:, : e // 2], y[:, e // 2 :]
        return torch.cat(
            (first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()), dim=-1
        )

    outputs = []
    for h in range(layer.heads):
        q, k, v = head("query", h, "query_norm"), head("key", h // share, "key_norm"), head("value", h // share, None)
        rows = []
        for t in range(time):
            scores = torch.stack([q[t] @ k[s] * scale for s in range(t + 1)])
            rows.append((torch.softmax(scores, 0)[:, None] * v[: t + 1]).sum(0))
        outputs.append(torch.stack(rows))
    return torch.cat(outputs, dim=-1) @ weights["output.weight"].T


def tables(places: int, head_width: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    return angle_tables(torch.arange(places), rotary_frequencies(head_width, theta, torch.device("cpu")))


@pytest.fixture
def layer() -> CausalSelfAttention:
    torch.manual_seed(0)
    made = CausalSelfAttention(width=24, heads=4, key_value_heads=2, head_width=6, epsilon=1e-6)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return made


def test_attention_equals_the_formula_and_a_wrong_scale_does_not(layer: CausalSelfAttention) -> None:
    x = torch.randn(1, 7, 24)
    cosine, sine = tables(7, 6, 100.0)
    ours = layer(x, AttentionPlan(cosine, sine), 0)[0].double()
    assert (ours - attention_by_hand(layer, x)).abs().max() < 1e-5
    assert (ours - attention_by_hand(layer, x, scale=1.0)).abs().max() > 1e-2


def test_a_later_token_changes_nothing_before_it(layer: CausalSelfAttention) -> None:
    x = torch.randn(1, 7, 24)
    changed = x.clone()
    changed[0, 5] += 1.0
    plan = AttentionPlan(*tables(7, 6, 100.0))
    before, after = layer(x, plan, 0), layer(changed, plan, 0)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_rotated_products_depend_on_the_distance_alone() -> None:
    q, k = torch.randn(16), torch.randn(16)
    cosine, sine = tables(40, 16, 10_000.0)

    def product(i: int, j: int) -> float:
        return float(rotate(q, cosine[i], sine[i]) @ rotate(k, cosine[j], sine[j]))

    assert product(3, 10) == pytest.approx(product(25, 32), abs=1e-4)
    assert product(3, 10) != pytest.approx(product(3, 11), abs=1e-3)


def test_rms_norm_equals_the_formula_in_fp32_and_bf16() -> None:
    norm = RMSNorm(32, epsilon=1e-3)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(5, 32)
    expected = x / (x.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight
    assert (norm(x) - expected).abs().max() < 1e-5
    assert (norm(x.bfloat16()).float() - expected).abs().max() < 0.05
    centred = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-3).sqrt() * norm.weight
    assert (norm(x) - centred).abs().max() > 1e-2

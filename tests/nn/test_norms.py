"""Over which axes the norms take their statistics, against the formula and torch's own; and how batch norm differs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from duihua.nn.norms import LayerNorm, RMSNorm, make_norm

X = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0)) * 3 + 1  # batch, time, width


def layer_norm() -> LayerNorm:
    norm = LayerNorm(16, epsilon=1e-3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def by_hand(norm: LayerNorm, x: Tensor, axes: tuple[int, ...], unbiased: bool = False) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) * weight + bias in float64."""
    x = x.double()
    centred = x - x.mean(dim=axes, keepdim=True)
    variance = x.var(dim=axes, keepdim=True, unbiased=unbiased)
    return centred / (variance + norm.epsilon).sqrt() * norm.weight.double() + norm.bias.double()


def test_layer_norm_equals_the_formula_over_the_features_of_one_place_and_torchs() -> None:
    norm = layer_norm()
    ours = norm(X).double()
    assert (ours - by_hand(norm, X, (-1,))).abs().max() < 1e-5
    theirs = nn.LayerNorm(16, eps=1e-3)
    theirs.load_state_dict(norm.state_dict())
    assert (norm(X) - theirs(X)).abs().max() < 1e-6
    # controls: batch and time as axes, all axes, and the variance of a sample
    for axes, unbiased in (((0, 1), False), ((0, 1, 2), False), ((-1,), True)):
        assert (ours - by_hand(norm, X, axes, unbiased)).abs().max() > 1e-2


def test_layer_norm_does_not_depend_on_batch_mates_and_batch_norm_does() -> None:
    mates = X.clone()
    mates[1:] = 100.0 * torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    for norm in (layer_norm(), make_norm("rms", 16, 1e-6)):
        assert torch.equal(norm(X)[0], norm(mates)[0])
        assert torch.equal(norm(X)[0], norm(X[:1])[0])
    batch_norm = nn.BatchNorm1d(16)

    def normed(x: Tensor) -> Tensor:
        found: Tensor = batch_norm(x.transpose(1, 2))
        return found.transpose(1, 2)

    assert (normed(X)[0] - normed(mates)[0]).abs().max() > 0.1
    over_batch = (X - X.mean(dim=(0, 1))) / (X.var(dim=(0, 1), unbiased=False) + 1e-5).sqrt()
    assert (normed(X) - over_batch).abs().max() < 1e-5  # its statistics: each feature over batch and time


def test_layer_norm_is_blind_to_shift_and_scale_and_rms_norm_to_scale_alone() -> None:
    layer, rms = LayerNorm(16, epsilon=1e-12), RMSNorm(16, epsilon=1e-12)
    assert torch.allclose(layer(3 * X + 5), layer(X), atol=1e-4)
    assert torch.allclose(rms(3 * X), rms(X), atol=1e-4)
    assert not torch.allclose(rms(X + 5), rms(X), atol=1e-1)

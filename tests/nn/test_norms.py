"""Over which axes the norms take their statistics, against the formula and torch's own; and how batch norm differs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from duihua.nn.norms import LayerNorm, RMSNorm, make_norm, rms_norm

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


def rms_in_float64(x: Tensor, weight: Tensor | None, epsilon: float) -> Tensor:
    """torch's own, from the operations that it is put together from."""
    return nn.functional.rms_norm(x.double(), (16,), None if weight is None else weight.double(), epsilon)


def without_the_width(x: Tensor, weight: Tensor | None, epsilon: float) -> Tensor:
    """A wrong variant: the scale taken for a constant, as if it did not depend on x."""
    scale = (x.double().pow(2).mean(-1, keepdim=True) + epsilon).rsqrt().detach()
    return x * scale if weight is None else x * scale * weight


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("layout", ["plain", "transposed", "spread"])
def test_the_gradients_of_rms_norm_are_those_that_torch_derives(weighted: bool, layout: str) -> None:
    generator = torch.Generator().manual_seed(2)
    x = (X.transpose(0, 1).contiguous().transpose(0, 1) if layout == "transposed" else X).detach().requires_grad_()
    weight = torch.randn(16, generator=generator).requires_grad_() if weighted else None
    grad = torch.randn(3, 5, 16, generator=generator)
    if layout == "spread":  # what the gradient of a sum is: one number seen everywhere
        grad = torch.ones(()).expand(3, 5, 16)
    wanted = [x] if weight is None else [x, weight]

    def results(norm: Callable[[Tensor, Tensor | None, float], Tensor]) -> list[Tensor]:
        y = norm(x, weight, 1e-3)
        return [y.detach().double(), *(one.double() for one in torch.autograd.grad(y, wanted, grad.to(y.dtype)))]

    found, expected, wrong = results(rms_norm), results(rms_in_float64), results(without_the_width)
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine - theirs).abs().max() < 1e-5
    assert (wrong[1] - expected[1]).abs().max() > 1e-2
    with torch.no_grad():
        assert torch.equal(rms_norm(x, weight, 1e-3).double(), found[0])


def test_rms_norm_leaves_out_what_nobody_asked_for_and_refuses_a_second_gradient() -> None:
    x, weight = X.clone().requires_grad_(), torch.ones(16)
    y = rms_norm(x, weight, 1e-3)
    first = torch.autograd.grad(y.sin().sum(), x, create_graph=True)[0]
    assert weight.grad is None
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()

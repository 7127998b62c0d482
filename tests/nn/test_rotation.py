"""The rotation of queries and keys against its formula: values, gradients and memory layout."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from duihua.nn import positions
from duihua.nn.positions import angle_tables, rotary_frequencies, rotate

Turn = Callable[[Tensor, Tensor, Tensor], Tensor]


def by_formula(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """x cos + (-second half, first half) sin, in float64; its gradient is what torch derives."""
    first, second = x.double().chunk(2, dim=-1)
    return x * cosine.double() + torch.cat((-second, first), dim=-1) * sine.double()


def tables(own: bool) -> tuple[Tensor, Tensor]:
    """Of nine places in a row; own: of each row its own places, (b, 1, t, e)."""
    places = torch.tensor([[4, 7, 8, 1, 0, 5, 6, 2, 3], [8, 7, 6, 5, 4, 3, 2, 1, 0]]) if own else torch.arange(9)
    cosine, sine = angle_tables(places, rotary_frequencies(8, 100.0, torch.device("cpu")), factor=1.25)
    return (cosine[:, None], sine[:, None]) if own else (cosine, sine)


@pytest.mark.parametrize("own", [False, True])
def test_values_and_gradients_are_those_of_the_formula(own: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 9, 3, 8, generator=generator).transpose(1, 2).requires_grad_()
    grad = torch.randn(2, 3, 9, 8, generator=generator)
    cosine, sine = tables(own)

    def results(turn: Turn) -> list[Tensor]:
        y = turn(x, cosine, sine)
        return [y.detach().double(), torch.autograd.grad(y, x, grad.to(y.dtype))[0].double()]

    def gap(found: list[Tensor]) -> float:
        return max(float((mine - theirs).abs().max()) for mine, theirs in zip(found, results(by_formula), strict=True))

    assert gap(results(rotate)) < 1e-6
    assert gap(results(lambda x, cosine, sine: rotate(x, cosine, -sine))) > 0.1
    with torch.no_grad():
        found = rotate(x, cosine, sine)
    assert torch.equal(found.double(), results(rotate)[0])
    assert found.stride() == x.stride()  # the layer's output projection reads it without a copy


def test_a_gradient_that_is_not_turned_back_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    x, (cosine, sine) = torch.ones(1, 1, 9, 8, requires_grad=True), tables(own=False)
    grad = torch.arange(72.0).view(1, 1, 9, 8)
    expected = torch.autograd.grad(by_formula(x, cosine, sine), x, grad.double())[0]
    assert (torch.autograd.grad(rotate(x, cosine, sine), x, grad)[0] - expected).abs().max() < 1e-4
    plain = positions._turned
    monkeypatch.setattr(positions, "_turned", lambda x, cosine, sine, way: plain(x, cosine, sine, 1))
    assert (torch.autograd.grad(rotate(x, cosine, sine), x, grad)[0] - expected).abs().max() > 1.0

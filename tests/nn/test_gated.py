"""The gated layer whose gradient is written out: the numbers of torch's operations to the last bit, and those of float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from duihua.nn.feed_forward import FeedForward
from duihua.nn.gated import gated_units, silu_times
from duihua.nn.lora import LoraLinear
from duihua.nn.products import SMALLEST, linear, products_by

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch carries no oneDNN")
WIDTH, HIDDEN = 96, 256


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def given(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """x, gate and up, such that gate and up have numbers about 1."""
    assert rows * WIDTH * HIDDEN >= SMALLEST
    scale = WIDTH**-0.5
    return (
        numbers(2, rows // 2, WIDTH),
        numbers(HIDDEN, WIDTH, seed=1, scale=scale),
        numbers(HIDDEN, WIDTH, seed=2, scale=scale),
    )


def results(units: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """The units and their gradients for a loss that weighs every number differently."""
    leaves = [one.clone().requires_grad_() for one in inputs]
    y = units(*leaves)
    return [y.detach(), *torch.autograd.grad(y.sin().sum(), leaves)]


def plain(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    return nn.functional.silu(linear(x, gate)) * linear(x, up)


def without_silus_slope(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """A wrong variant: the gate's gradient taken through x sigmoid(x) as if sigmoid were a constant."""
    open_nh = linear(x, gate)
    return open_nh * open_nh.sigmoid().detach() * linear(x, up)


@needs_onednn
@pytest.mark.parametrize("rows", [512, 334, 2048])
def test_values_and_gradients_are_those_of_torchs_operations_to_the_last_bit(rows: int) -> None:
    inputs = given(rows)
    with products_by("onednn"):
        found, expected, wrong = (results(way, *inputs) for way in (gated_units, plain, without_silus_slope))
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)
    torch.testing.assert_close(wrong[0], expected[0])
    assert (wrong[2] - expected[2]).abs().max() > 0.1


@needs_onednn
def test_they_are_those_of_float64() -> None:
    x, gate, up = given(512)
    with products_by("onednn"):
        found, wrong = results(gated_units, x, gate, up), results(without_silus_slope, x, gate, up)
    with products_by("torch"):
        expected = results(plain, x.double(), gate.double(), up.double())
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs, atol=2e-4, rtol=0.0)
    assert (wrong[1] - expected[1]).abs().max() > 0.1


def test_silu_times_equals_torchs_operations_to_the_last_bit() -> None:
    gate, up = numbers(7, 5, 33), numbers(7, 5, 33, seed=1)
    found = results(silu_times, gate, up)
    expected = results(lambda gate, up: nn.functional.silu(gate) * up, gate, up)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))
    turned = results(silu_times, up, gate)  # control: the two are not alike
    assert (turned[0] - expected[0]).abs().max() > 0.1


@needs_onednn
@pytest.mark.parametrize("frozen", ["x", "gate", "up", "both weights"])
def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(frozen: str) -> None:
    x, gate, up = given(512)
    trained = {"x": (gate, up), "gate": (x, up), "up": (x, gate), "both weights": (x,)}[frozen]
    for leaf in trained:
        leaf.requires_grad_()
    with products_by("onednn"):
        found = torch.autograd.grad(gated_units(x, gate, up).sin().sum(), trained)
        expected = torch.autograd.grad(plain(x, gate, up).sin().sum(), trained)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))


@needs_onednn
def test_a_layer_takes_it_only_where_gate_and_up_are_products_that_nobody_watches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []

    def noted(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
        taken.append(1)
        return gated_units(x, gate, up)

    monkeypatch.setattr("duihua.nn.feed_forward.gated_units", noted)
    x = given(512)[0].requires_grad_()

    def takes(layer: FeedForward) -> bool:
        taken.clear()
        with products_by("onednn"):
            layer(x).sum().backward()
        return bool(taken)

    assert takes(FeedForward(WIDTH, HIDDEN))
    assert not takes(FeedForward(WIDTH, HIDDEN, bias=True))
    assert not takes(FeedForward(WIDTH, HIDDEN, activation="gelu"))
    watched = FeedForward(WIDTH, HIDDEN)
    seen: list[tuple[int, ...]] = []
    watched.up.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    assert not takes(watched)
    assert seen == [(2, 256, HIDDEN)]
    adapted = FeedForward(WIDTH, HIDDEN)
    assert adapted.gate is not None
    adapted.gate = LoraLinear(adapted.gate, rank=2, scale=1.0)
    assert not takes(adapted)


@needs_onednn
def test_a_layer_is_the_same_with_and_without_gradients_and_keeps_less_for_them() -> None:
    torch.manual_seed(0)
    layer, x = FeedForward(WIDTH, HIDDEN), given(512)[0]
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with products_by("onednn"):
        with torch.no_grad():
            expected = layer(x)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            found = layer(x)
    assert torch.equal(found, expected)
    assert kept.count(512 * HIDDEN) == 3  # gate, up and the units for `down`; without silu's output

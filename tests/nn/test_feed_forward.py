"""Each form of the feed-forward layer against its formula, written out in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from duihua.models.presets import preset
from duihua.nn.feed_forward import ACTIVATIONS, Activation, FeedForward

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))

FORMULAS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu_squared": lambda x: torch.where(x > 0, x * x, torch.zeros_like(x)),
    "silu": lambda x: x / (1 + torch.exp(-x)),
}


def layer(activation: Activation, gated: bool, bias: bool) -> FeedForward:
    torch.manual_seed(1)
    return FeedForward(8, 32, activation, gated, bias)


def by_hand(made: FeedForward, x: Tensor, formula: Callable[[Tensor], Tensor]) -> Tensor:
    """down(f(up(x))), or down(f(gate(x)) * up(x)) (Shazeer 2020, equation 6)."""
    weights = {name: weight.double() for name, weight in made.named_parameters()}

    def product(name: str, value: Tensor) -> Tensor:
        return value @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.zeros(1).double())

    x = x.double()
    units = formula(product("up", x)) if made.gate is None else formula(product("gate", x)) * product("up", x)
    return product("down", units)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("activation", get_args(Activation))
def test_every_form_equals_its_formula(activation: Activation, gated: bool) -> None:
    made = layer(activation, gated, bias=not gated)
    ours = made(X).double()
    assert (ours - by_hand(made, X, FORMULAS[activation])).abs().max() < 1e-5
    others = [name for name in FORMULAS if name != activation]
    assert all((ours - by_hand(made, X, FORMULAS[name])).abs().max() > 1e-5 for name in others)


def test_the_forms_of_gelu_differ_by_less_than_a_thousandth_and_not_by_nothing() -> None:
    x = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    gap = (FORMULAS["gelu"](x) - FORMULAS["gelu_tanh"](x)).abs().max()
    assert 4e-4 < gap < 5e-4
    assert torch.allclose(ACTIVATIONS["gelu_tanh"](x), FORMULAS["gelu_tanh"](x), atol=1e-12)
    assert not torch.allclose(ACTIVATIONS["gelu"](x), FORMULAS["gelu_tanh"](x), atol=1e-5)


def test_gpt1_has_four_times_the_width_and_gelu_and_a_gated_layer_of_two_thirds_the_units_costs_as_much() -> None:
    shape = preset("gpt1")
    assert shape.feed_forward_width == 4 * shape.width == 3072
    assert (shape.activation, shape.gated) == ("gelu_tanh", False)
    plain = sum(weight.numel() for weight in FeedForward(12, 48, "relu", gated=False).parameters())
    assert plain == 2 * 12 * 48
    assert sum(weight.numel() for weight in FeedForward(12, 32, "silu", gated=True).parameters()) == plain


def test_each_place_is_worked_on_by_itself() -> None:
    made, other = layer("silu", True, False), X.clone()
    other[0, 2] += 1.0
    changed = (made(other) - made(X)).abs().sum(dim=-1) > 0
    assert changed.nonzero().tolist() == [[0, 2]]

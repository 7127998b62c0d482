"""The feed-forward layer of a block, gated or plain.

down(f(gate(x)) * up(x)) (Shazeer 2020, equation 6; with silu it is SwiGLU, the Llama and Qwen shape), or
down(f(up(x))) (Vaswani et al. 2017, equation 2; GPT-1 and GPT-2). Which f: see the field `activation` of the config.
The tanh form of GELU is not the exact one: the two differ by up to 5e-4 a unit, too little to change the likeliest
token and enough to make a ported model another model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from duihua.nn.gated import gated_units, silu_times
from duihua.nn.products import Linear, pays

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu_squared"]


def relu_squared(x: Tensor) -> Tensor:
    """max(x, 0)^2 (So et al. 2021, section 4)."""
    return nn.functional.relu(x).square()


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": nn.functional.silu,
    "gelu": nn.functional.gelu,
    "gelu_tanh": partial(nn.functional.gelu, approximate="tanh"),
    "relu": nn.functional.relu,
    "relu_squared": relu_squared,
}


class FeedForward(nn.Module):
    """(..., width) -> (..., width) through `hidden` units. bias: in all projections. dropout: share of the units that is
    zeroed in training."""

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: Activation = "silu",
        gated: bool = True,
        bias: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.activation = ACTIVATIONS[activation]
        self.gate = Linear(width, hidden, bias=bias) if gated else None
        self.up = Linear(width, hidden, bias=bias)
        self.down = Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            units = self.activation(self.up(x))
        else:
            units = self._gated(x, self.gate)
        if self.dropout and self.training:
            units = nn.functional.dropout(units, self.dropout)
        y: Tensor = self.down(units)
        return y

    def _gated(self, x: Tensor, gate: Linear) -> Tensor:
        """f(gate(x)) * up(x); on a processor silu's gradient is written out (nn/gated.py)."""
        if not torch.is_grad_enabled():
            return self.activation(gate(x)).mul_(self.up(x))
        if self.activation is ACTIVATIONS["silu"] and x.device.type == "cpu" and not torch.compiler.is_compiling():
            if _product_alone(gate) and _product_alone(self.up) and pays(x, gate.weight):
                return gated_units(x, gate.weight, self.up.weight)
            return silu_times(gate(x), self.up(x))
        units: Tensor = self.activation(gate(x)) * self.up(x)
        return units


def _product_alone(layer: nn.Module) -> bool:
    """Whether a layer is a product with a weight and nothing else, and nobody looks at what enters and leaves it."""
    watched = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    return type(layer) is Linear and layer._parameters.get("bias") is None and not watched

"""The units of a gated feed-forward layer, silu(x gate^T) * (x up^T), with their gradient written out.

Why: put together from torch's operations, silu's output is kept beside gate and up only to be multiplied once more, and each
of the two products copies the same x turned round for the gradient of its weight. Here silu is computed again, so that a
quarter less is kept, x is turned round once, and the second product adds to the first one's gradient of x as it goes. The
numbers are torch's, to the last bit (docs/training/products.md).

Shapes: n rows, i inputs, h units.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from duihua.nn.products import add_product, by_rows, onednn


def gated_units(x: Tensor, gate_hi: Tensor, up_hi: Tensor) -> Tensor:
    """silu(x gate^T) * (x up^T), (..., i) -> (..., h), of what oneDNN multiplies; with a gradient that can be taken once."""
    return by_rows(x, lambda rows_ni: _GatedUnits.apply(rows_ni.contiguous(), gate_hi, up_hi))  # type: ignore[no-untyped-call]


def silu_times(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, of one shape, with a gradient that can be taken once."""
    units: Tensor = _SiluTimes.apply(gate, up)  # type: ignore[no-untyped-call]
    return units


def _gradients(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Those of gate and of up: grad up silu'(gate), and grad silu(gate)."""
    return torch.ops.aten.silu_backward(grad * up, gate), nn.functional.silu(gate).mul_(grad)


class _SiluTimes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return nn.functional.silu(gate).mul_(up)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return _gradients(grad, *ctx.saved_tensors)


class _GatedUnits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ni: Tensor, gate_hi: Tensor, up_hi: Tensor) -> Tensor:
        gate_nh, up_nh = onednn(x_ni, gate_hi), onednn(x_ni, up_hi)
        ctx.save_for_backward(x_ni, gate_hi, up_hi, gate_nh, up_nh)
        return nn.functional.silu(gate_nh).mul_(up_nh)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_nh: Tensor) -> tuple[Tensor | None, ...]:
        x_ni, gate_hi, up_hi, gate_nh, up_nh = ctx.saved_tensors
        of_gate_nh, of_up_nh = _gradients(grad_nh, gate_nh, up_nh)
        grad_x = grad_gate = grad_up = None
        if ctx.needs_input_grad[0]:
            grad_x = add_product(onednn(of_up_nh, up_hi.t()), of_gate_nh, gate_hi.t())
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            x_in = x_ni.t().contiguous()
            grad_gate = onednn(x_in, of_gate_nh.t()).t() if ctx.needs_input_grad[1] else None
            grad_up = onednn(x_in, of_up_nh.t()).t() if ctx.needs_input_grad[2] else None
        return grad_x, grad_gate, grad_up

"""The norms of the blocks: root mean square (Llama, Qwen) and layer norm (GPT-1, GPT-2).

Why the first: it needs no mean and no bias, so it costs less than layer norm and works as well (Zhang and Sennrich 2019,
equation 4). The second is Ba et al. 2016, equation 4, and stands here because published models use it. The statistics are
taken in fp32 whatever the compute type, as transformers does it, because a bf16 mean of squares loses the small
differences that the scale has to carry; torch's layer norm does so by itself.

On a processor torch puts its root mean square norm together from six operations and its gradient from a dozen, each of them
a way to memory and back. Here the gradient is written out, which takes a quarter of the time.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + epsilon) * weight over the last axis. Input and output: (..., width).

    weighted: without it the weight is one and nothing is learnt.
    """

    def __init__(self, width: int, epsilon: float = 1e-6, weighted: bool = True) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width)) if weighted else None

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            return rms_norm(x, self.weight, self.epsilon)
        scaled = rms_norm(x.float(), None, self.epsilon).to(x.dtype)
        return scaled if self.weight is None else self.weight.to(x.dtype) * scaled


def rms_norm(x: Tensor, weight: Tensor | None, epsilon: float) -> Tensor:
    """y = x / sqrt(mean(x^2) + epsilon) * weight over the last axis, with a gradient that can be taken once."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return nn.functional.rms_norm(x, (x.shape[-1],), weight, epsilon)
    if torch.is_grad_enabled():
        y: Tensor = _RMSNorm.apply(x, weight, epsilon)  # type: ignore[no-untyped-call]
        return y
    return _normed(x, weight, epsilon)[0]


def _normed(x: Tensor, weight: Tensor | None, epsilon: float) -> tuple[Tensor, Tensor]:
    """y, and what x was multiplied by in each place, (..., 1)."""
    squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
    scale = squares.div_(x.shape[-1]).add_(epsilon).rsqrt_()
    y = x * scale
    return (y if weight is None else y.mul_(weight)), scale


class _RMSNorm(torch.autograd.Function):
    """With s = 1 / sqrt(mean(x^2) + epsilon), d the width and g the gradient of y: dw = sum of g x s over the places, and
    dx = s g w - x s^3 / d sum of g w x over the width."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, epsilon: float) -> Tensor:
        y, scale = _normed(x, weight, epsilon)
        ctx.save_for_backward(x, weight, scale)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, scale = ctx.saved_tensors
        product = (grad * x).reshape(-1, x.shape[-1])
        along = product.sum(1) if weight is None else torch.mv(product, weight)
        grad_x = grad * scale if weight is None else (grad * weight).mul_(scale)
        grad_x.addcmul_(x, scale.pow(3).mul_(along.view(scale.shape)), value=-1.0 / x.shape[-1])
        wanted = weight is not None and ctx.needs_input_grad[1]
        return grad_x, torch.mv(product.t(), scale.reshape(-1)) if wanted else None, None


class LayerNorm(nn.Module):
    """y = (x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias over the last axis. Input and output: (..., width)."""

    def __init__(self, width: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return nn.functional.layer_norm(x, (x.shape[-1],), weight, bias, self.epsilon)


def make_norm(kind: Literal["rms", "layer"], width: int, epsilon: float) -> nn.Module:
    """The norm of that name over vectors of `width`."""
    return RMSNorm(width, epsilon) if kind == "rms" else LayerNorm(width, epsilon)

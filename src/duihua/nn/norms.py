"""The norms of the blocks: root mean square (Llama, Qwen) and layer norm (GPT-1, GPT-2).

Why the first: it needs no mean and no bias, so it costs less than layer norm and works as well (Zhang and Sennrich 2019,
equation 4). The second is Ba et al. 2016, equation 4, and stands here because published models use it. The statistics are
taken in fp32 whatever the compute type, as transformers does it, because a bf16 mean of squares loses the small
differences that the scale has to carry; torch's layer norm does so by itself.
"""

from __future__ import annotations

from typing import Literal

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
            return nn.functional.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)
        scaled = nn.functional.rms_norm(x.float(), (x.shape[-1],), None, self.epsilon).to(x.dtype)
        return scaled if self.weight is None else self.weight.to(x.dtype) * scaled


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

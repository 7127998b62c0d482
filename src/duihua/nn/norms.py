"""Root-mean-square layer norm: the norm of the Llama and Qwen families.

Why: it needs no mean and no bias, so it costs less than layer norm and works as well (Zhang and Sennrich 2019, equation 4).
The statistics are taken in fp32 whatever the compute type, as transformers does it, because a bf16 mean of squares loses
the small differences that the scale has to carry.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + epsilon) * weight over the last axis. Input and output: (..., width)."""

    def __init__(self, width: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            return nn.functional.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)
        scaled = nn.functional.rms_norm(x.float(), (x.shape[-1],), None, self.epsilon).to(x.dtype)
        return self.weight.to(x.dtype) * scaled

"""The feed-forward layer of a block: SwiGLU, down(silu(gate(x)) * up(x)) (Shazeer 2020, equation 6), without biases."""

from __future__ import annotations

from torch import Tensor, nn


class SwiGLU(nn.Module):
    """(..., width) -> (..., width) through a gated hidden layer of `hidden` units."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(nn.functional.silu(self.gate(x)) * self.up(x))
        return y

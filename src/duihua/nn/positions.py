"""Rotary positions: a query and a key are turned by angles that grow with their place, so that their product depends on
the distance alone (Su et al. 2021, equation 34).

Why the half layout: dimension i is paired with i + e/2, not with its neighbour. It is what transformers and llama.cpp
read for the Llama and Qwen families; the interleaved layout of the paper is the same up to a fixed permutation, and
mixing the two up ruins a model without any error.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_tables(positions: int, head_width: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines for positions 0..positions-1, each (positions, head_width), fp32; the second half repeats the first."""
    exponents = torch.arange(0, head_width, 2, dtype=torch.float32, device=device) / head_width
    frequencies = 1.0 / (theta**exponents)
    angles = torch.outer(torch.arange(positions, dtype=torch.float32, device=device), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x_bhte: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn queries or keys (b, h, t, e). cosine, sine: (t, e), or (b, 1, t, e) when rows have their own positions."""
    half = x_bhte.shape[-1] // 2
    turned = torch.cat((-x_bhte[..., half:], x_bhte[..., :half]), dim=-1)
    return x_bhte * cosine + turned * sine

"""Rotary frequencies changed so that a model reads further than it was trained for.

Each function takes the plain frequencies (e/2,), fp32, in radians a place, or what makes them, and gives the changed
ones. The formulas are those of transformers to the last constant, because a checkpoint that was tuned with one of them
works with no other: positions divided (Chen et al. 2023), a larger base for longer texts (NTK-aware; bloc97 2023), YaRN
(Peng et al. 2023, section 3) and the ramp of Llama 3.1 (Grattafiori et al. 2024).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def linear(frequencies: Tensor, factor: float) -> Tensor:
    """All places divided by the factor."""
    return frequencies / factor


def dynamic_bases(theta: float, head_width: int, factor: float, original_context: int, lengths: Tensor) -> Tensor:
    """The base for texts of given lengths, fp32 of the same shape; up to the original context it is theta itself."""
    longest = lengths.clamp(min=original_context).float()
    growth = factor * longest / original_context - (factor - 1)
    return theta * growth ** (head_width / (head_width - 2))


def yarn(
    frequencies: Tensor,
    theta: float,
    factor: float,
    original_context: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
) -> Tensor:
    """Frequencies that turn more than beta_fast times over the original context stay, those that turn less than beta_slow
    times are divided by the factor, with a straight ramp over the dimensions between."""
    width = 2 * frequencies.shape[0]

    def dimension(rotations: float) -> float:
        """Of the frequency that turns so many times over the original context."""
        return width * math.log(original_context / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(beta_fast), dimension(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    if low == high:
        high += 0.001  # a ramp of no length would divide by zero
    places = torch.arange(width // 2, dtype=torch.float32, device=frequencies.device)
    divided = ((places - low) / (high - low)).clamp(0, 1)
    return frequencies / factor * divided + frequencies * (1 - divided)


def yarn_attention_factor(factor: float, mscale: float | None = None, mscale_all_dim: float | None = None) -> float:
    """What cosines and sines are multiplied by: 0.1 ln(factor) + 1 (Peng et al. 2023, section 3.4), or the quotient of two
    such terms where a checkpoint names both weights (DeepSeek-V2)."""

    def term(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if mscale and mscale_all_dim:
        return term(mscale) / term(mscale_all_dim)
    return term(1.0)


def llama3(
    frequencies: Tensor,
    factor: float,
    original_context: int,
    low_frequency_factor: float = 1.0,
    high_frequency_factor: float = 4.0,
) -> Tensor:
    """Wavelengths above original_context / low_frequency_factor are stretched by the factor, those below original_context /
    high_frequency_factor stay, with a ramp in the frequency between."""
    wavelengths = 2 * math.pi / frequencies
    kept = (original_context / wavelengths - low_frequency_factor) / (high_frequency_factor - low_frequency_factor)
    kept = kept.clamp(0, 1)
    return (1 - kept) * frequencies / factor + kept * frequencies

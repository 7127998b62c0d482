"""How a model tells places apart: rotary positions, and vectors added to the embedding.

Rotary: a query and a key are turned by angles that grow with their place, so that their product depends on the distance
alone (Su et al. 2021, equation 34). Why the half layout: dimension i is paired with i + e/2, not with its neighbour. It is
what transformers and llama.cpp read for the Llama and Qwen families; the interleaved layout of the paper is the same up to
a fixed permutation, and mixing the two up ruins a model without any error. Frequencies stretched to longer contexts come
from nn/rope_scaling.py. Added vectors are a learnt table (an embedding in the decoder) or the fixed one here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rotary_frequencies(head_width: int, theta: float, device: torch.device) -> Tensor:
    """Radians a place of each pair of dimensions, (head_width / 2,), fp32: theta^(-2i / e)."""
    exponents = torch.arange(0, head_width, 2, dtype=torch.float32, device=device) / head_width
    return 1.0 / (theta**exponents)


def angle_tables(places: Tensor, frequencies: Tensor, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines for given places: (..., t) and (..., e/2) -> two tensors (..., t, e); the second half repeats the
    first. Both are multiplied by `factor`, which scales the attention scores by its square."""
    angles = places.float()[..., :, None] * frequencies[..., None, :]
    angles = torch.cat((angles, angles), dim=-1)
    if factor == 1.0:
        return angles.cos(), angles.sin()
    return angles.cos() * factor, angles.sin() * factor


def rotate(x_bhte: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn queries or keys (b, h, t, e). cosine, sine: (t, e), or (b, 1, t, e) when rows have their own positions; their
    second halves repeat the first. The gradient can be taken once."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        y: Tensor = _Rotation.apply(x_bhte, cosine, sine)  # type: ignore[no-untyped-call]
        return y
    return _turned(x_bhte, cosine, sine, 1)


def _turned(x_bhte: Tensor, cosine: Tensor, sine: Tensor, way: int) -> Tensor:
    """`way`: 1 as the tables say, -1 back. In place on the halves, so that nothing is cut out and joined again."""
    half = x_bhte.shape[-1] // 2
    y = x_bhte * cosine
    y[..., :half].addcmul_(x_bhte[..., half:], sine[..., :half], value=-way)
    y[..., half:].addcmul_(x_bhte[..., :half], sine[..., half:], value=way)
    return y


class _Rotation(torch.autograd.Function):
    """A rotation's gradient is turned back: written out because torch's own way there fills a tensor of zeros for each half."""

    @staticmethod
    def forward(ctx: Any, x_bhte: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return _turned(x_bhte, cosine, sine, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return _turned(grad, cosine, sine, -1), None, None


def sinusoidal_table(positions: int, width: int, device: torch.device) -> Tensor:
    """(positions, width), fp32: sin(p / 10000^(2i/d)) in the even columns, the cosine in the odd ones (Vaswani et al. 2017,
    section 3.5)."""
    places = torch.arange(positions, dtype=torch.float32, device=device)
    frequencies = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float32, device=device) / width)
    angles = torch.outer(places, frequencies)
    table = torch.empty(positions, width, device=device)
    table[:, 0::2] = angles.sin()
    table[:, 1::2] = angles.cos()[:, : width // 2]
    return table


def sinusoidal_halves_table(positions: int, width: int, device: torch.device) -> Tensor:
    """The same numbers as `sinusoidal_table` in another order, (positions, width): all sines, then all cosines, as Marian and
    fairseq store them. A model that was trained with one order reads the other as noise, without any error."""
    table = sinusoidal_table(positions, width, device)
    return torch.cat((table[:, 0::2], table[:, 1::2]), dim=1)

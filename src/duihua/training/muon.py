"""Muon: momentum whose matrix updates are made orthogonal (Jordan et al. 2024).

A gradient matrix has a few large singular values and many small ones; plain momentum moves along the few. Replacing the
update U S V^T by U V^T moves along all of them alike. The factor U V^T is found without a decomposition, by iterating an
odd polynomial that pushes every singular value towards one (Newton-Schulz). The coefficients below differ from step to
step: they are the optimal sequence of Amsel et al. 2025 (Polar Express, table 1 form, five steps, safety factor 2e-2).

Matrices of one shape are stacked, and tall ones transposed to wide, so that the whole model takes a few batched
products: on a processor this is what makes Muon cheap.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from duihua.nn.products import batched_product, gpu_has_bf16

POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def orthogonalise(gradients_kmn: Tensor, steps: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """The nearest semi-orthogonal matrix of each of k matrices (k, m, n) with m <= n, up to a few per cent.

    dtype: number format of the products, in which the iterations are stable though they lose digits; None for bf16 on a GPU
    that has it and fp32 elsewhere. The result has the input's type.
    """
    if dtype is None and gradients_kmn.is_cuda and gpu_has_bf16():
        dtype = torch.bfloat16
    x = gradients_kmn / (gradients_kmn.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    x = x.to(dtype or gradients_kmn.dtype)
    for a, b, c in POLAR_EXPRESS[:steps]:
        gram = batched_product(x, x)
        polynomial = batched_product(gram, gram, gram, c, b)  # a gram matrix is its own transpose
        x = batched_product(polynomial, x.mT, x, 1.0, a)
    found: Tensor = x.to(gradients_kmn.dtype)
    return found


class Muon:
    """Muon over named matrices. `step(rate)` uses their `.grad`; state is plain tensors by stacked group."""

    def __init__(
        self,
        matrices: dict[str, torch.nn.Parameter],
        momentum: float,
        weight_decay: float,
        newton_schulz_steps: int,
        dtype: torch.dtype | None = None,
    ) -> None:
        """dtype: see `orthogonalise`."""
        self.dtype, self.momentum, self.weight_decay, self.steps = dtype, momentum, weight_decay, newton_schulz_steps
        self.groups = group_by_shape(matrices)
        self.matrices = matrices
        self.velocity = {
            shape: torch.zeros(len(names), *shape, device=matrices[names[0]].device)
            for shape, names in self.groups.items()
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update of every matrix: w <- w (1 - rate * decay) - rate * max(1, rows / columns)^0.5 * orthogonal(momentum)."""
        for shape, names in self.groups.items():
            weights = [self.matrices[name] for name in names]
            wide = [weight.shape == shape for weight in weights]
            gradients = torch.stack(
                [
                    _gradient(weight) if is_wide else _gradient(weight).mT
                    for weight, is_wide in zip(weights, wide, strict=True)
                ]
            )
            velocity = self.velocity[shape]
            velocity.lerp_(gradients, 1 - self.momentum)
            update = orthogonalise(gradients.lerp_(velocity, self.momentum), self.steps, self.dtype)
            for i, (weight, is_wide) in enumerate(zip(weights, wide, strict=True)):
                if self.weight_decay:
                    weight.mul_(1 - rate * self.weight_decay)
                weight.add_(update[i] if is_wide else update[i].mT, alpha=-rate * update_gain(weight))

    def state_dict(self) -> dict[str, Tensor]:
        return {f"velocity.{short}x{long}": tensor for (short, long), tensor in self.velocity.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for (short, long), tensor in self.velocity.items():
            tensor.copy_(state[f"velocity.{short}x{long}"])


def group_by_shape(matrices: Mapping[str, Tensor]) -> dict[tuple[int, int], list[str]]:
    """Names by (short, long) side: what can be stacked, the tall ones transposed."""
    groups: dict[tuple[int, int], list[str]] = {}
    for name, matrix in matrices.items():
        short, long = sorted(matrix.shape)
        groups.setdefault((short, long), []).append(name)
    return groups


def update_gain(weight: Tensor) -> float:
    """What a tall matrix's update is multiplied by, for its output's sake (Jordan et al. 2024)."""
    return float(max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5)


def _gradient(weight: torch.nn.Parameter) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad

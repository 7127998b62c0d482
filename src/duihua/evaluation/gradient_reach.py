"""How much of a gradient reaches back through a recurrent layer: the vanishing gradient, measured.

Back-propagation through k steps multiplies by k Jacobians. In the tanh RNN each is diag(1 - h^2) U: with torch's start U has
a spectral radius of about 1 / sqrt(3) = 0.58, so after 50 steps nothing is left, and with a larger U and small states it
explodes (Hochreiter 1991; Bengio et al. 1994; Pascanu et al. 2013). In the LSTM the cell's own path multiplies by the forget
gates, about sigmoid(1) = 0.73 with a forget bias of 1, and by nothing else: the units whose gates stand higher carry the rest.

The figure: norm of d(v . h_T) / d(h_{T-k}), v a random unit vector, which is 1 at k = 0. The set-up: 200 steps, 32 units, 4
inputs from N(0, 1), torch's start, double precision, because what is measured is far below what fp32 can add up. Over seeds
the geometric mean is taken: the quantity spreads over orders of magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from duihua.nn.recurrent import RecurrentLayer, State
from duihua.nn.recurrent_kinds import CellKind

STEPS, WIDTH, INPUTS, BATCH = 200, 32, 4, 4
SEEDS = tuple(range(10))
LAGS = (10, 50, 100)


@dataclass(frozen=True)
class GradientReach:
    """norms[k]: geometric mean over seeds of the gradient's norm k steps before the end, k = 0 .. steps - 1; by_seed alike."""

    cell: CellKind
    forget_bias: float | None
    norms: tuple[float, ...]
    by_seed: tuple[tuple[float, ...], ...]

    def at(self, lags: Sequence[int] = LAGS) -> dict[str, float]:
        """The norms at some lags."""
        return {str(lag): self.norms[lag] for lag in lags}

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON: for a figure or a table."""
        return {"cell": self.cell, "forget_bias": self.forget_bias, "norms": list(self.norms)}


def gradient_reach(
    cell: CellKind,
    *,
    forget_bias: float | None = 1.0,
    steps: int = STEPS,
    width: int = WIDTH,
    inputs: int = INPUTS,
    batch: int = BATCH,
    seeds: Sequence[int] = SEEDS,
    recurrent_scale: float = 1.0,
) -> GradientReach:
    """Measure a layer of random weights. recurrent_scale multiplies U: doubled, the RNN's gradient
    lasts, held by the flat ends of tanh; where those are not reached it explodes."""
    found = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        layer = RecurrentLayer(cell, inputs, width, forget_bias if cell == "lstm" else None).double()
        layer.initialise(generator)
        with torch.no_grad():
            layer.recurrent_weight.mul_(recurrent_scale)
        x_btd = torch.randn(batch, steps, inputs, dtype=torch.float64, generator=generator)
        direction_be = torch.randn(batch, width, dtype=torch.float64, generator=generator)
        norms = reach_of(layer, x_btd, direction_be / direction_be.norm(dim=1, keepdim=True))
        found.append(tuple(norms))
    mean = tuple(math.exp(sum(map(_log, each)) / len(found)) for each in zip(*found, strict=True))
    return GradientReach(cell, forget_bias if cell == "lstm" else None, mean, tuple(found))


def reach_of(layer: RecurrentLayer, x_btd: Tensor, direction_be: Tensor) -> list[float]:
    """||d(direction . h_T) / d(h_{T-k})||, mean over the batch, for k = 0 .. t - 1.

    The gradient is that of h alone: what flows into h_{T-k} from all later steps, by whatever way.
    """
    state: State = tuple(part.requires_grad_() for part in layer.start(x_btd.shape[0]))
    hidden: list[Tensor] = []
    for x_bd in x_btd.unbind(dim=1):
        _, state = layer.step(x_bd, state)
        hidden.append(state[0])
    gradients = torch.autograd.grad((hidden[-1] * direction_be).sum(), hidden)
    return [float(gradient.norm(dim=1).mean()) for gradient in reversed(gradients)]


def _log(value: float) -> float:
    return math.log(max(value, 1e-300))

"""Which parameter goes to which optimizer, and one object that steps them all.

Matrices inside the blocks carry the features and gain from Muon; embeddings, the head and vectors are look-ups and
scales, where orthogonality means nothing, and take AdamW with a rate of their own each (Jordan et al. 2024, usage notes).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from duihua.training.config import OptimizerConfig
from duihua.training.muon import Muon


class Optimizer:
    """Muon and AdamW over a network's trainable parameters; state is kept by parameter name."""

    def __init__(self, network: nn.Module, config: OptimizerConfig) -> None:
        self.config = config
        self.parameters = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
        matrices: dict[str, nn.Parameter] = {}
        groups: dict[str, list[nn.Parameter]] = {}
        self._names: dict[nn.Parameter, str] = {weight: name for name, weight in self.parameters.items()}
        for name, weight in self.parameters.items():
            role = _role(name, weight)
            if config.kind == "muon" and role == "matrix":
                matrices[name] = weight
            else:
                groups.setdefault(role, []).append(weight)
        rates = {
            "embedding": config.embedding_learning_rate,
            "head": config.head_learning_rate,
            "vector": config.scalar_learning_rate,
        }
        self._rates: list[float] = []
        adam_groups: list[dict[str, Any]] = []
        for role, weights in groups.items():
            rate = config.learning_rate if config.kind == "adamw" else rates[role]
            decay = config.weight_decay if role == "matrix" else 0.0
            adam_groups.append({"params": weights, "lr": rate, "weight_decay": decay})
            self._rates.append(rate)
        self.muon = (
            Muon(matrices, config.momentum, config.weight_decay, config.newton_schulz_steps) if matrices else None
        )
        self.adam = (
            torch.optim.AdamW(
                adam_groups, betas=(config.beta1, config.beta2), eps=config.epsilon, weight_decay=0.0, fused=True
            )
            if adam_groups
            else None
        )

    def step(self, factor: float) -> None:
        """Update every parameter at `factor` times its own rate."""
        if self.adam is not None:
            for group, rate in zip(self.adam.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor
            self.adam.step()
        if self.muon is not None:
            self.muon.step(self.config.matrix_learning_rate * factor)

    def rate(self, factor: float) -> float:
        """The rate to show: Muon's for the matrices, or AdamW's."""
        return factor * (self.config.matrix_learning_rate if self.muon is not None else self.config.learning_rate)

    def zero_grad(self) -> None:
        for weight in self.parameters.values():
            weight.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """All moments as flat tensors by name."""
        state: dict[str, Tensor] = {}
        if self.muon is not None:
            state.update({f"muon.{key}": value for key, value in self.muon.state_dict().items()})
        if self.adam is not None:
            for weight, moments in self.adam.state.items():
                for key, value in moments.items():
                    state[f"adam.{self._names[cast(nn.Parameter, weight)]}.{key}"] = value
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if self.muon is not None:
            self.muon.load_state_dict({k.removeprefix("muon."): v for k, v in state.items() if k.startswith("muon.")})
        if self.adam is not None:
            for group in self.adam.param_groups:
                for weight in group["params"]:
                    prefix = f"adam.{self._names[weight]}."
                    moments = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
                    if moments:
                        self.adam.state[weight] = {
                            key: value.to(weight.device).clone() for key, value in moments.items()
                        }


def _role(name: str, weight: nn.Parameter) -> str:
    if weight.ndim < 2:
        return "vector"
    if "embedding" in name:
        return "embedding"
    if name.split(".")[-2] in ("head", "score", "value"):
        return "head" if "blocks" not in name else "matrix"
    return "matrix"

"""Which parameter goes to which optimizer, and one object that steps them all.

Matrices inside the blocks carry the features and gain from Muon; embeddings, the head and vectors are look-ups and
scales, where orthogonality means nothing, and take AdamW with a rate of their own each (Jordan et al. 2024, usage notes).
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from duihua.nn.lora import SUFFIXES
from duihua.training.config import OptimizerConfig
from duihua.training.muon import POLAR_EXPRESS, Muon


class Parts(Protocol):
    """How the tensors of a sharded network are cut over ranks: training/sharding.py, which takes seconds to import."""

    def muon(self, matrices: dict[str, nn.Parameter], config: OptimizerConfig, dtype: torch.dtype | None) -> Muon:
        """The one that gathers each matrix before it orthogonalises it."""

    def whole(self, tensor: Tensor) -> Tensor:
        """A tensor with all its parts."""

    def part_like(self, tensor: Tensor, like: Tensor) -> Tensor:
        """A whole tensor cut as `like` is."""


class Optimizer:
    """Muon and one of torch's optimizers over a network's trainable parameters; state is kept by parameter name.

    parts: where the network is sharded; the state that is given and taken holds whole tensors then too. dtype: number format
    of Muon's products, see `orthogonalise`.
    """

    def __init__(
        self,
        network: nn.Module,
        config: OptimizerConfig,
        parts: Parts | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.config, self.parts = config, parts
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
            "adapter": config.adapter_learning_rate,
        }
        self._rates: list[float] = []
        torch_groups: list[dict[str, Any]] = []
        for role, weights in groups.items():
            rate = rates[role] if config.kind == "muon" or role == "adapter" else config.learning_rate
            decay = config.weight_decay if role in ("matrix", "adapter") else 0.0
            torch_groups.append({"params": weights, "lr": rate, "weight_decay": decay})
            self._rates.append(rate)
        self.muon = None
        if matrices:
            self.muon = parts.muon(matrices, config, dtype) if parts else _muon(matrices, config, dtype)
        self.others = _torch_optimizer(torch_groups, config) if torch_groups else None

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """All trainable parameters in torch's form: what torch.amp.GradScaler looks through."""
        return [{"params": list(self.parameters.values())}]

    @property
    def _prefix(self) -> str:
        return "sgd" if self.config.kind == "sgd" else "adam"

    def step(self, factor: float) -> None:
        """Update every parameter at `factor` times its own rate."""
        if self.others is not None:
            for group, rate in zip(self.others.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor
            self.others.step()
        if self.muon is not None:
            self.muon.step(self.config.matrix_learning_rate * factor)

    def rate(self, factor: float) -> float:
        """The rate to show: Muon's for the matrices, or the one for everything, or the adapters'."""
        return factor * (self.config.matrix_learning_rate if self.muon is not None else self._rates[0])

    def zero_grad(self) -> None:
        for weight in self.parameters.values():
            weight.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """All moments as flat tensors by name. Every rank must ask."""
        state: dict[str, Tensor] = {}
        if self.muon is not None:
            state.update({f"muon.{key}": value for key, value in self.muon.state_dict().items()})
        if self.others is not None:
            for weight, moments in self.others.state.items():
                for key, value in moments.items():
                    if value is not None:  # the momentum of sgd when it has none
                        name = self._names[cast(nn.Parameter, weight)]
                        state[f"{self._prefix}.{name}.{key}"] = self.parts.whole(value) if self.parts else value
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if self.muon is not None:
            self.muon.load_state_dict({k.removeprefix("muon."): v for k, v in state.items() if k.startswith("muon.")})
        if self.others is not None:
            for group in self.others.param_groups:
                for weight in group["params"]:
                    prefix = f"{self._prefix}.{self._names[weight]}."
                    moments = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
                    if moments:
                        self.others.state[weight] = {key: self._like(value, weight) for key, value in moments.items()}

    def _like(self, value: Tensor, weight: Tensor) -> Tensor:
        """A copy of a moment where its parameter is; a count of steps is nobody's part."""
        if self.parts and value.shape == weight.shape:
            return self.parts.part_like(value, weight).clone()
        return value.to(weight.device).clone()


def _muon(matrices: dict[str, nn.Parameter], config: OptimizerConfig, dtype: torch.dtype | None) -> Muon:
    return Muon(matrices, config.momentum, config.weight_decay, config.newton_schulz_steps, dtype)


def _torch_optimizer(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    if config.kind == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
    kind = torch.optim.Adam if config.kind == "adam" else torch.optim.AdamW
    return kind(groups, betas=(config.beta1, config.beta2), eps=config.epsilon, weight_decay=0.0, fused=True)


def state_bytes(network: nn.Module, config: OptimizerConfig) -> int:
    """Bytes of fp32 state that the optimizer will hold for the trainable parameters of a network, on any device.

    Muon and momentum keep one number a parameter, Adam and AdamW two moments.
    """
    numbers = 0
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            if config.kind == "sgd":
                each = 1 if config.momentum else 0
            else:
                each = 1 if config.kind == "muon" and _role(name, weight) == "matrix" else 2
            numbers += each * weight.numel()
    return 4 * numbers


def step_flops(network: nn.Module, config: OptimizerConfig) -> int:
    """Operations of one update's matrix products: Muon's orthogonalisation, 0 for the others.

    Each of its iterations on an (m, n) matrix with m <= n is two products of (m, m, n) and one of (m, m, m). It does not
    depend on the batch, so that it weighs little in a step of many tokens and most in a step of few.
    """
    work = 0
    if config.kind == "muon":
        for name, weight in network.named_parameters():
            if weight.requires_grad and _role(name, weight) == "matrix":
                short, long = sorted(weight.shape)
                work += min(config.newton_schulz_steps, len(POLAR_EXPRESS)) * (4 * short**2 * long + 2 * short**3)
    return work


def _role(name: str, weight: nn.Parameter) -> str:
    if name.endswith(SUFFIXES):
        return "adapter"
    if weight.ndim < 2:
        return "vector"
    if "embedding" in name:
        return "embedding"
    if f".{name}".split(".")[-2] in ("head", "score", "value"):
        return "head" if "blocks" not in name else "matrix"
    return "matrix"

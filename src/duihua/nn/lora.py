"""LoRA: a frozen matrix and a trained update of low rank beside it (Hu et al. 2021, equation 3).

h = W x + (alpha / rank) B A x. The update that a pre-trained matrix needs for a new task lies close to a space of few
dimensions, so two thin factors carry it: A starts random, B at zero, and the first forward is exactly the frozen model's.
Merging adds the product to W once, after which nothing of LoRA is left and generation costs what it did before.

Why `LoraLinear` is an `nn.Linear` that keeps the matrix under its old name: names of parameters, checkpoints and bundles
do not change by the wrapping, and whatever counts or reads linear layers sees one.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterator
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

from duihua.errors import ConfigError
from duihua.nn.lora_config import LoraConfig, covers
from duihua.nn.products import Linear, linear

N = TypeVar("N", bound=nn.Module)
SUFFIXES = ("lora_a", "lora_b")
"""Last part of the names of an adapter's parameters."""


class LoraLinear(Linear):
    """(..., inputs) -> (..., outputs) through `linear`'s own weight and bias, frozen, and an adapter of `rank`.

    lora_a: (rank, inputs). lora_b: (outputs, rank), zero. scale: the factor before B A.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float = 0.0) -> None:
        nn.Module.__init__(self)  # nn.Linear's would make a weight only to throw it away
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        for frozen in linear.parameters():
            frozen.requires_grad_(False)
        like = linear.weight
        self.lora_a = nn.Parameter(torch.zeros(rank, self.in_features, dtype=like.dtype, device=like.device))
        self.lora_b = nn.Parameter(torch.zeros(self.out_features, rank, dtype=like.dtype, device=like.device))
        self.scale = scale
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        low = linear(self.dropout(x), self.lora_a)
        y: Tensor = super().forward(x) + linear(low, self.lora_b) * self.scale
        return y

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={len(self.lora_a)}, scale={self.scale}"


def add_lora(network: nn.Module, config: LoraConfig, seed: int) -> None:
    """Freeze `network` and put adapters beside the matrices of its blocks that `config.targets` names, in place.

    A is uniform within +-1/sqrt(inputs), drawn from a generator of its own, as in the authors' code and in PEFT. Raises
    ConfigError for a target that this network does not have.
    """
    found = {name: module for name, module in matrices_of_blocks(network) if not isinstance(module, LoraLinear)}
    in_block = {re.sub(r"^.*blocks\.\d+\.", "", name) for name in found}
    for target in config.targets:
        if not any(covers(target, module) for module in in_block):
            raise ConfigError(
                f"this model has no matrix {target!r} in its blocks",
                where="lora.targets",
                remedy=f"It has {', '.join(sorted(in_block)) or 'none without an adapter'}",
            )
    network.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, matrix in found.items():
        if any(covers(target, re.sub(r"^.*blocks\.\d+\.", "", name)) for target in config.targets):
            adapted = LoraLinear(matrix, config.rank, config.scale, config.dropout)
            drawn = torch.rand(adapted.lora_a.shape, generator=generator) * 2 - 1
            with torch.no_grad():
                adapted.lora_a.copy_(drawn * matrix.in_features**-0.5)
            replace_module(network, name, adapted)


def merge_lora(network: nn.Module) -> None:
    """Add every adapter to its matrix and put plain linear layers back, in place. Does nothing where there is none.

    The sum is a new tensor: another module that shares the frozen matrix (see `twin`) keeps it as it was.
    """
    for name, adapted in list(adapters(network)):
        plain = Linear(adapted.in_features, adapted.out_features, bias=False, device="meta")
        with torch.no_grad():
            update = adapted.lora_b.float() @ adapted.lora_a.float()
            merged = adapted.weight.float().add(update, alpha=adapted.scale).to(adapted.weight.dtype)
        plain.weight, plain.bias = nn.Parameter(merged, requires_grad=False), adapted.bias
        replace_module(network, name, plain.train(adapted.training))


def adapters(network: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """The adapted matrices with their names."""
    return ((name, module) for name, module in network.named_modules() if isinstance(module, LoraLinear))


def lora_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """The As and Bs by name."""
    return {name: weight for name, weight in network.named_parameters() if name.endswith(SUFFIXES)}


def matrices_of_blocks(network: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers of attention and feed-forward in all blocks, with their names."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and re.search(r"(^|\.)blocks\.\d+\.(attention|feed_forward)\.\w+$", name):
            yield name, module


def replace_module(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where `name` stands in `network`."""
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)


def twin(network: N) -> N:
    """A second network over the same tensors, which costs no memory.

    What it is for: PPO's reference is the policy without adapters, and its critic the reward model with some. Each is a
    twin, and changing the modules of the one (`add_lora`, `merge_lora`, `eval`) does not touch the other. Both must leave
    the shared tensors alone.
    """
    shared = chain(network.parameters(), network.buffers())
    return copy.deepcopy(network, {id(tensor): tensor for tensor in shared})


def frozen_fingerprint(network: nn.Module) -> str:
    """Hex SHA-256 of the names and values of all parameters that are not trained; empty where all are.

    Adapters are worth nothing without the weights that they were trained beside; this tells whether they are the same.
    """
    digest = hashlib.sha256()
    frozen = [(name, weight) for name, weight in network.named_parameters() if not weight.requires_grad]
    for name, weight in frozen:
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest() if frozen else ""

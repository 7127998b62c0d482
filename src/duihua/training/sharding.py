"""Weights, gradients and optimizer state spread over the ranks, a part of each tensor on each (ZeRO stage 3, Rajbhandari et
al. 2020, section 5; here torch's FSDP2, `fully_shard`): for models whose training does not fit one device.

A block's weights are gathered when its turn comes and dropped after it, in the backward pass again, and its gradients are
added over the ranks into the parts. The stage's own network stays apart and whole: `fill` puts the weights into it when it is
looked at, so that evaluation, checkpoints and bundles know nothing of parts.

Muon needs whole matrices: U V^T of a part is not a part of U V^T. Each rank keeps the momentum of its own part; the matrices
of one shape are gathered, orthogonalised on every rank alike, and each rank moves its part.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from duihua.errors import TrainingError
from duihua.training.config import OptimizerConfig
from duihua.training.muon import Muon, group_by_shape, orthogonalise, update_gain
from duihua.training.ranks import Ranks


class Sharded:
    """A sharded copy of `network`: `model` is what is trained."""

    def __init__(self, network: nn.Module, ranks: Ranks, device: torch.device, label: str = "") -> None:
        """Raises TrainingError for a network without blocks. Every rank must come here with the same weights."""
        self.model = copy.deepcopy(network)
        found = [getattr(module, "blocks", None) for module in self.model.modules()]
        blocks = [block for group in found if isinstance(group, nn.ModuleList) for block in group]
        if not blocks:
            raise TrainingError(
                f"{type(network).__name__} has no blocks to shard", where=label, remedy="Set sharding to none"
            )
        mesh = init_device_mesh(device.type, (ranks.count,))
        for module in (*blocks, self.model):
            fully_shard(module, mesh=mesh)
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)  # a sum: the Trainer divides by the weight of all ranks
                module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
        self.label = label
        self.seen: dict[str, Tensor] = {}  # the last micro-batch of this rank
        if hasattr(self.model, "hidden"):  # a way in beside forward, where the root's own weights must be gathered too
            register_fsdp_forward_method(self.model, "hidden")

    def check(self, batches: object, scaler: object | None) -> None:
        """Raise TrainingError for what does not go with it."""
        if scaler is not None or getattr(batches, "needs_network", False):
            raise TrainingError(
                "fp16 needs its gradients whole" if scaler else "the batches are made by the network itself",
                where=f"{self.label or 'trainer'}, sharding",
                remedy="Use bf16" if scaler else "Set sharding to none",
            )

    def stand_in(self, loss: Callable[[nn.Module, dict[str, Tensor]], Any]) -> None:
        """Take part in the gathering of a micro-batch of which this rank has no rows: the last one again, for nothing."""
        if not self.seen:
            raise TrainingError(
                "a micro-batch has fewer rows than there are ranks", where=self.label, remedy="Raise its rows"
            )
        (loss(self.model, self.seen).sum * 0.0).backward()

    def muon(self, matrices: dict[str, nn.Parameter], config: OptimizerConfig, dtype: torch.dtype | None) -> Muon:
        """Muon for this network's matrices."""
        return ShardedMuon(matrices, config, dtype)

    def whole(self, tensor: Tensor) -> Tensor:
        """A tensor with all its parts. Every rank must ask."""
        return whole(tensor)

    def part_like(self, tensor: Tensor, like: Tensor) -> Tensor:
        """A whole tensor, the same on every rank, cut as `like` is."""
        return part_like(tensor, like)

    def own_parts(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """This rank's parts, the same memory."""
        return [own(tensor) for tensor in tensors]

    @torch.no_grad()
    def fill(self, network: nn.Module) -> None:
        """Put the whole weights into `network`, on every rank."""
        target = network.state_dict()
        for name, tensor in self.model.state_dict().items():
            target[name].copy_(whole(tensor))

    @torch.no_grad()
    def take(self, network: nn.Module) -> None:
        """Take the weights of `network`, which are the same on every rank."""
        source = network.state_dict()
        for name, tensor in self.model.state_dict().items():
            own(tensor).copy_(own(part_like(source[name], tensor)))


class ShardedMuon(Muon):
    """`Muon` for matrices in parts; its state is that of `Muon`, so that a run can go on with whole ones."""

    def __init__(
        self, matrices: dict[str, nn.Parameter], config: OptimizerConfig, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__({}, config.momentum, config.weight_decay, config.newton_schulz_steps, dtype)
        self.matrices, self.groups = matrices, group_by_shape(matrices)
        self.parts = {name: torch.zeros_like(own(weight)) for name, weight in matrices.items()}  # the momentum

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update of every matrix, as `Muon.step` says it."""
        for shape, names in self.groups.items():
            gathered = [self._whole(self._moved(name), name) for name in names]
            stacked = torch.stack([m if m.shape == shape else m.mT for m in gathered])
            update = orthogonalise(stacked, self.steps, self.dtype)
            for i, name in enumerate(names):
                weight = self.matrices[name]
                mine = part_like(update[i] if weight.shape == shape else update[i].mT, weight)
                local = own(weight)
                if self.weight_decay:
                    local.mul_(1 - rate * self.weight_decay)
                local.add_(own(mine), alpha=-rate * update_gain(weight))

    def _moved(self, name: str) -> Tensor:
        """This rank's part of the gradient with Nesterov's momentum."""
        weight, velocity = self.matrices[name], self.parts[name]
        gradient = torch.zeros_like(velocity) if weight.grad is None else own(weight.grad)
        velocity.lerp_(gradient, 1 - self.momentum)
        return gradient.lerp(velocity, self.momentum)

    def _whole(self, part: Tensor, name: str) -> Tensor:
        weight = self.matrices[name]
        assert isinstance(weight, DTensor)
        joined = DTensor.from_local(
            part, weight.device_mesh, weight.placements, shape=weight.shape, stride=weight.stride(), run_check=False
        )
        return joined.full_tensor()

    def state_dict(self) -> dict[str, Tensor]:
        state = {}
        for (short, long), names in self.groups.items():
            gathered = [self._whole(self.parts[name], name) for name in names]
            state[f"velocity.{short}x{long}"] = torch.stack(
                [matrix if matrix.shape == (short, long) else matrix.mT for matrix in gathered]
            )
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for (short, long), names in self.groups.items():
            for i, name in enumerate(names):
                weight, stored = self.matrices[name], state[f"velocity.{short}x{long}"][i]
                value = stored if weight.shape == (short, long) else stored.mT
                self.parts[name].copy_(own(part_like(value, weight)))


def own(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, the same memory; a tensor that is not sharded as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its parts. Every rank must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same on every rank, cut as `like` is (and on its device)."""
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    moved = tensor.to(like.device).contiguous()
    return distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None)

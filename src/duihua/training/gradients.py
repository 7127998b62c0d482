"""The gradients of a step: from all micro-batches, from all ranks, in smaller pieces where the memory does not hold one.

What the losses and weights of a step come to is gathered in one report from every rank, so that all decide alike by it; the
gradients are added over the ranks in one place, after the last micro-batch. They are divided by the weight of the whole step
in the end, not by that of a micro-batch or of a rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from duihua.errors import TrainingError
from duihua.training.loss import Batch, Loss
from duihua.training.micro_batches import MicroBatches, is_out_of_memory
from duihua.training.optimizers import Optimizer
from duihua.training.precision import autocast
from duihua.training.ranks import Ranks

if TYPE_CHECKING:
    from duihua.training.sharding import Sharded


class Accumulated(NamedTuple):
    """What the micro-batches of a step came to; their gradients stand in the parameters, divided by `divisor`."""

    total: float
    weight: float
    divisor: float
    tokens: int
    sums: dict[str, tuple[float, float]]


class Gradients:
    """Computes the gradients of `model`'s parameters and leaves them there."""

    def __init__(
        self,
        model: nn.Module,
        batches: MicroBatches,
        optimizer: Optimizer,
        *,
        device: torch.device,
        dtype: torch.dtype | None,
        scaler: torch.amp.GradScaler | None,
        ranks: Ranks,
        sharded: Sharded | None = None,
        label: str = "",
    ) -> None:
        self.model, self.batches, self.optimizer = model, batches, optimizer
        self.device, self.dtype, self.scaler = device, dtype, scaler
        self.ranks, self.sharded, self.label = ranks, sharded, label

    def of_step(self, micro_batches: list[Batch], loss: Loss) -> Accumulated:
        """The sums of the whole step; in the parameters its gradients, divided by `divisor` and multiplied by the scaler's
        scale. Raises TrainingError where the memory does not hold one example."""
        return self._add_up(self._in_memory(micro_batches, loss))

    def _in_memory(self, micro_batches: list[Batch], loss: Loss) -> Accumulated:
        """The gradients of all micro-batches; where the memory does not hold one, all once more in smaller ones."""
        random = torch.get_rng_state()
        random_cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        while True:
            self.optimizer.zero_grad()
            try:
                return self._accumulate(micro_batches, loss)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                error.__traceback__ = None  # it holds the tensors of the micro-batch that was too large
                short = error
            micro_batches = self.batches.smaller(micro_batches, short)
            torch.set_rng_state(random)
            if random_cuda is not None:
                torch.cuda.set_rng_state(random_cuda, self.device)

    def _accumulate(self, micro_batches: list[Batch], loss: Loss) -> Accumulated:
        total, weight, divisor, tokens = 0.0, 0.0, 1.0, 0
        sums: dict[str, tuple[float, float]] = {}
        alone = self.ranks.count == 1
        if self.scaler is not None:  # it begins with what it first scales: here, for a rank that has no rows
            self.scaler.scale(torch.zeros((), device=self.device))
        if self.scaler is not None and not alone:  # as below, but the same on all ranks
            divisor = float(max(1, sum(self.ranks.gather(sum(_size(batch) for batch in micro_batches)))))
        for batch in micro_batches:
            if not batch:  # this rank has no rows of it
                if self.sharded:
                    self.sharded.stand_in(loss)
                continue
            on_device = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
            with autocast(self.dtype, self.device, keep_copies=self.sharded is None):  # a block's weights go with it
                parts = loss(self.model, on_device)
            if self.sharded:
                self.sharded.seen = on_device
            if alone and len(micro_batches) == 1:  # divide before the backward pass and save a pass over all gradients
                divisor = max(float(parts.weight), 1e-12)
            elif (
                alone and self.scaler is not None and weight == 0.0 and parts.weight
            ):  # a sum of losses would be too large for fp16
                divisor = float(parts.weight)
            divided = parts.sum / divisor if divisor != 1.0 else parts.sum
            scaled = divided if self.scaler is None else self.scaler.scale(divided)
            scaled.backward()  # type: ignore[no-untyped-call]
            total, weight = total + float(parts.sum.detach()), weight + float(parts.weight)
            for name, (value, count) in parts.metrics.items():
                old = sums.get(name, (0.0, 0.0))
                sums[name] = (old[0] + float(value), old[1] + float(count))
            tokens += int(batch["token_ids"].numel()) if "token_ids" in batch else int(parts.weight)
        return Accumulated(total, weight, divisor, tokens, sums)

    def _add_up(self, own: Accumulated) -> Accumulated:
        """The step over all ranks: sums of everything, and in the parameters the sums of the gradients."""
        if self.ranks.count == 1:
            return own
        weights = list(self.optimizer.parameters.values())
        reports = self.ranks.gather([*own, "".join("0" if weight.grad is None else "1" for weight in weights)])
        sums: dict[str, tuple[float, float]] = {}
        for report in reports:
            for name, (value, count) in report[4].items():
                old = sums.get(name, (0.0, 0.0))
                sums[name] = (old[0] + value, old[1] + count)
        if not self.sharded:  # there the backward pass has added them
            moved = [
                weight for place, weight in enumerate(weights) if any(report[5][place] == "1" for report in reports)
            ]
            for weight in moved:
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
            self.ranks.add_all([weight.grad for weight in moved if weight.grad is not None])
        total, weight_of_all, tokens = (sum(report[place] for report in reports) for place in (0, 1, 3))
        return Accumulated(total, weight_of_all, own.divisor, tokens, sums)

    def scale_and_clip(self, scale: float, most: float) -> float:
        """Multiply all gradients by `scale` and, where their norm is then above `most` (0: no limit), down to it. Returns the
        norm before that. Raises TrainingError where no parameter has a gradient."""
        gradients = [weight.grad for weight in self.optimizer.parameters.values() if weight.grad is not None]
        if self.sharded:
            gradients = self.sharded.own_parts(gradients)
        if not gradients:
            raise TrainingError("no parameter received a gradient", where=self.label, remedy="Check what is frozen")
        norms = torch._foreach_norm(gradients)
        joined = torch.stack([n.float() for n in norms]).norm()
        norm = float(self.ranks.add(joined.square()).sqrt() if self.sharded else joined) * scale
        if most and norm > most:
            scale = scale * most / (norm + 1e-6)
        if scale != 1.0:
            torch._foreach_mul_(gradients, scale)
        return norm


def _size(batch: Batch) -> int:
    """Numbers in the first tensor of a micro-batch: about its tokens."""
    return next((tensor.numel() for tensor in batch.values()), 0)

"""Ranks: the processes that train one model together, and the few things that they say to each other.

Why own sums and not torch's DistributedDataParallel: that averages the gradients of the ranks, and the mean of means is the
gradient of the whole step only where all ranks have the same number of targets, which packed conversations, pairs and
replies never have. Here each rank adds up the gradients of its sums, `add_all` adds them over the ranks once a step, and the
Trainer divides by the weight of all. What that loses is the overlap of the sums with the backward pass; with several
micro-batches a step it is little.

Everything but gradients and weights travels as JSON: numbers in it come out as they went in, and nothing is unpickled. The
group is torch's own (`torch.distributed`), so that this module holds no state: without one there is a single rank and every
function gives its argument back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from duihua.errors import TrainingError
from duihua.training.checkpoints import join_state, split_state
from duihua.training.launch import launched_ranks, local_rank

BUCKET_NUMBERS = 1 << 24
"""Gradients are added in pieces of so many numbers (64 MiB): few messages, and little memory for the copy."""
SHORT = 4096
"""Bytes of a report that travel in one message; a longer one takes two."""
PATIENCE = timedelta(hours=1)
"""How long a rank waits for another: the first one evaluates and writes while the others stand still."""


class DoneHere(BaseException):
    """Raised on every rank but the first where the rest is the first one's work; ends the stage there without a result."""


@dataclass(frozen=True)
class Ranks:
    """number: of this rank, from 0. count: how many there are."""

    number: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes, prints and evaluates."""
        return self.number == 0

    def gather(self, value: Any) -> list[Any]:
        """The JSON value of every rank, in their order. Every rank must ask."""
        if self.count == 1:
            return [value]
        own = _bytes(value)
        size = torch.tensor([len(own)]).view(torch.uint8)
        found = self._gather_bytes(torch.cat((size, own[: SHORT - 8])), SHORT)
        sizes = [int(data[:8].view(torch.int64)) for data in found]
        parts = [data[8 : 8 + size] for data, size in zip(found, sizes, strict=True)]
        rest = max(sizes) - (SHORT - 8)
        if rest > 0:
            parts = [torch.cat(pair) for pair in zip(parts, self._gather_bytes(own[SHORT - 8 :], rest), strict=True)]
        return [_value(data[:size]) for data, size in zip(parts, sizes, strict=True)]

    def _gather_bytes(self, data: Tensor, length: int) -> list[Tensor]:
        padded = torch.zeros(length, dtype=torch.uint8)
        padded[: len(data)] = data
        found = [torch.zeros(length, dtype=torch.uint8) for _ in range(self.count)]
        dist.all_gather(found, padded)
        return found

    def share(self, value: Any = None) -> Any:
        """The first rank's JSON value on all of them; what the others pass is not looked at."""
        if self.count == 1:
            return value
        own = _bytes(value) if self.first else torch.zeros(0, dtype=torch.uint8)
        size = torch.tensor([len(own)])
        dist.broadcast(size, 0)
        data = own if self.first else torch.zeros(int(size), dtype=torch.uint8)
        dist.broadcast(data, 0)
        return value if self.first else _value(data)

    def share_state(self, value: Any = None) -> Any:
        """`share` for nested dicts and lists that hold tensors; on the other ranks they arrive on the CPU."""
        if self.count == 1:
            return value
        tensors: dict[str, Tensor] = {}
        plain = split_state(value, "state", tensors) if self.first else None
        forms = {
            name: [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for name, tensor in tensors.items()
        }
        plain, forms = self.share([plain, forms])
        for name, (kind, shape) in forms.items():
            tensor = tensors[name] if self.first else torch.empty(shape, dtype=getattr(torch, kind))
            dist.broadcast(tensor, 0)
            tensors[name] = tensor
        return value if self.first else join_state(plain, tensors)

    def add(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, in its place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def add_all(self, tensors: Sequence[Tensor]) -> None:
        """The sums of many tensors of one type over all ranks, in their places; the same list on every rank."""
        if self.count == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            dist.all_reduce(flat)
            for tensor, part in zip(bucket, torch.split(flat, [tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """The first rank's tensors on all of them, in place."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Go on when all ranks have come here."""
        if self.count > 1:
            self.gather(None)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first rank runs the block, then the first one of each machine, then the others: what one makes in a folder
        that they share is there for the next."""
        turn = 0 if self.first else 1 if local_rank() == 0 else 2
        for _ in range(turn):
            self.wait()
        yield
        for _ in range(2 - turn):
            self.wait()


def current() -> Ranks:
    """The ranks of this process as torch.distributed knows them."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    return Ranks()


def device_of_rank(device: str) -> str:
    """Each rank of a machine has the GPU of its own number; a CPU is everybody's. Raises TrainingError for cuda:N."""
    if device.startswith("cuda") and launched_ranks() > 1:
        if device != "cuda":
            raise TrainingError(
                f"several ranks cannot share {device}",
                where="--device",
                remedy="Write --device cuda: each takes its own",
            )
        return f"cuda:{local_rank()}"
    return device


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Inside, this process is a rank of those that torchrun started together; alone where it started none."""
    if launched_ranks() == 1:
        yield Ranks()
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield current()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def only_first_goes_on() -> None:
    """Everything after this is the first rank's: the others leave the stage by `DoneHere`. All ranks must come here.

    The group ends too, so that a rank that goes on alone cannot wait for one that has gone.
    """
    ranks = current()
    if ranks.count == 1:
        return
    ranks.wait()
    dist.destroy_process_group()
    if not ranks.first:
        raise DoneHere


def _bytes(value: Any) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode("ascii")), dtype=torch.uint8)


def _value(data: Tensor) -> Any:
    return json.loads(data.numpy().tobytes())


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    numbers = 0
    for tensor in tensors:
        if bucket and numbers + tensor.numel() > BUCKET_NUMBERS:
            yield bucket
            bucket, numbers = [], 0
        bucket.append(tensor)
        numbers += tensor.numel()
    if bucket:
        yield bucket

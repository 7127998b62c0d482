"""Snapshots of the weights during training, and the mean of the last few (Vaswani et al. 2017, section 6.1).

The weights of the last steps wander round a better point than any of them: their mean is a model of its own that costs no
training. The paper averages the last 5 of the base model, written at ten-minute intervals; here a snapshot is taken at every
evaluation.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from duihua.errors import CheckpointError
from duihua.files import require_space

PREFIX, SUFFIX, BEST = "step-", ".safetensors", "best.safetensors"


class Snapshots:
    """The last `keep` snapshots of a network's weights in a folder, and the best one apart."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def save(self, step: int, network: nn.Module, best: bool = False) -> None:
        """Write the present weights under `step` (again, if they are there), and as the best ones if they are."""
        weights = stored_weights(network)
        self.folder.mkdir(parents=True, exist_ok=True)
        require_space(self.folder, 2 * sum(tensor.numel() * tensor.element_size() for tensor in weights.values()))
        _write(self.folder / f"{PREFIX}{step:08d}{SUFFIX}", weights)
        if best:
            _write(self.folder / BEST, weights)
        for old in self.paths()[: -self.keep]:
            old.unlink(missing_ok=True)

    def paths(self) -> list[Path]:
        """The kept snapshots, oldest first."""
        return sorted(self.folder.glob(f"{PREFIX}*{SUFFIX}"))

    def averaged(self) -> dict[str, Tensor]:
        """The mean of the kept snapshots. Raises CheckpointError where there is none or one cannot be read."""
        return average([_read(path) for path in self.paths()])

    def best(self) -> dict[str, Tensor]:
        """The weights that were called best. Raises CheckpointError where there are none."""
        return _read(self.folder / BEST)


def average(snapshots: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor over the snapshots, summed in double precision. Raises CheckpointError for none, or for
    snapshots of different networks."""
    if not snapshots:
        raise CheckpointError("there is no snapshot to average", remedy="Evaluate at least once during training")
    first = snapshots[0]
    if any({n: t.shape for n, t in other.items()} != {n: t.shape for n, t in first.items()} for other in snapshots):
        raise CheckpointError("snapshots of different networks cannot be averaged", remedy="Remove the older ones")
    means = {}
    for name, tensor in first.items():
        if not tensor.is_floating_point():
            means[name] = snapshots[-1][name].clone()
            continue
        total = torch.zeros_like(tensor, dtype=torch.float64)
        for snapshot in snapshots:
            total += snapshot[name]
        means[name] = (total / len(snapshots)).to(tensor.dtype)
    return means


def stored_weights(network: nn.Module) -> dict[str, Tensor]:
    """The network's parameters and buffers, a shared one once, on the CPU."""
    seen: set[int] = set()
    kept: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        if tensor.numel() and tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        kept[name] = tensor.detach().cpu().clone()
    return kept


def put(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put what `stored_weights` gave (or its average) into a network of the same shape."""
    unknown = network.load_state_dict(dict(weights), strict=False).unexpected_keys
    if unknown:
        raise CheckpointError(f"weights of another network: {', '.join(unknown[:3])}", remedy="Start in a new folder")


def _write(path: Path, weights: dict[str, Tensor]) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, aside)
        os.replace(aside, path)
    except (OSError, SafetensorError) as error:
        aside.unlink(missing_ok=True)
        raise CheckpointError(
            f"cannot write the snapshot: {getattr(error, 'strerror', None) or error}",
            where=str(path),
            remedy="Free some space and run the same command again",
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # safetensors and the file system each have their own
        raise CheckpointError(
            f"the snapshot cannot be read: {error}", where=str(path), remedy="Remove this folder and train again"
        ) from error

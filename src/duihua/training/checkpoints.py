"""Checkpoints: everything that a run needs to go on as if nothing had happened.

A checkpoint is a folder `step-NNNNNNNN` with `weights.safetensors`, `state.safetensors` (optimizer moments, buffers of the
batch source, random states) and `state.json` (step, counters, the rest of the batch source's state, and the SHA-256 of
the other two). It is written under another name, synced and renamed: a folder with the right name is whole. A damaged one
is named and the one before it is used. No pickle: safetensors and JSON only.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from duihua.errors import CheckpointError
from duihua.files import read_json, require_space, sha256_file, sync_directory

PREFIX = "step-"


def split_state(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Replace every tensor inside nested dicts and lists by {"tensor": path}, collecting the tensors."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().to("cpu").contiguous().clone()
        return {"tensor": path}
    if isinstance(value, dict):
        return {key: split_state(item, f"{path}.{key}", tensors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [split_state(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]
    return value


def join_state(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of split_state (tuples come back as lists)."""
    if isinstance(value, dict):
        if set(value) == {"tensor"}:
            return tensors[value["tensor"]]
        return {key: join_state(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [join_state(item, tensors) for item in value]
    return value


def save_checkpoint(folder: Path, step: int, weights: dict[str, Tensor], state: dict[str, Any], keep: int) -> Path:
    """Write checkpoint `step` below `folder` atomically and remove all but the newest `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".part-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    tensors: dict[str, Tensor] = {}
    plain = split_state(state, "state", tensors)
    needed = sum(t.numel() * t.element_size() for t in (*weights.values(), *tensors.values()))
    require_space(folder, needed + (1 << 20))
    target = folder / f"{PREFIX}{step:08d}"
    aside = folder / f".part-{os.getpid()}-{step}"
    aside.mkdir()
    try:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in weights.items()}, aside / "weights.safetensors")
        save_file(tensors or {"empty": torch.zeros(1)}, aside / "state.safetensors")
        hashes = {name: sha256_file(aside / name) for name in ("weights.safetensors", "state.safetensors")}
        text = json.dumps({"format": 1, "step": step, "sha256": hashes, "state": plain}, ensure_ascii=False)
        (aside / "state.json").write_text(text, encoding="utf-8")
        for file in aside.iterdir():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        if target.exists():
            shutil.rmtree(target)
        os.rename(aside, target)
        sync_directory(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise CheckpointError(
            f"cannot write the checkpoint: {error.strerror or error}",
            where=str(target),
            remedy="Free some space and run the same command again; the checkpoint before it is untouched",
        ) from error
    for old in _folders(folder)[: -max(1, keep)]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_newest(folder: Path) -> tuple[int, dict[str, Tensor], dict[str, Any], list[str]] | None:
    """(step, weights, state, names of damaged checkpoints passed over), or None where there is nothing to go on from.

    Raises CheckpointError when there are checkpoints and all of them are damaged.
    """
    damaged: list[str] = []
    for candidate in reversed(_folders(folder)):
        try:
            head = read_json(candidate / "state.json")
            for name, digest in head["sha256"].items():
                if sha256_file(candidate / name) != digest:
                    raise CheckpointError("checksum differs", where=str(candidate / name))
            weights = load_file(candidate / "weights.safetensors")
            tensors = load_file(candidate / "state.safetensors")
            return int(head["step"]), weights, join_state(head["state"], tensors), damaged
        except Exception as error:  # any fault in reading means the same here: this one is damaged
            damaged.append(f"{candidate.name} ({error})")
    if damaged:
        raise CheckpointError(
            f"all checkpoints are damaged: {'; '.join(damaged)}",
            where=str(folder),
            remedy="Remove this folder to train the stage again from its start",
        )
    return None


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir())

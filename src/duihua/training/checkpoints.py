"""Checkpoints: everything that a run needs to go on as if nothing had happened.

A checkpoint is a folder `step-NNNNNNNN` with

    weights.safetensors   the network's tensors
    state.safetensors     optimizer moments, buffers of the batch source, random states
    state.json            step, counters, schedule, place in the data, figures since the last line of metrics.jsonl
    SHA256SUMS            the hash of each of the three, in the form that `sha256sum --check` reads

It is written under another name, synced and renamed: a folder with the right name is whole. What happens to it afterwards (a
bad disk, a copy that was cut off, an editor) shows in the hashes: a damaged one is named and the one before it is used. All
three files are hashed, the JSON too: one digit of a place in the data that flips is valid JSON. No pickle: safetensors and
JSON only.

Kept are the newest ones and, where a metric is named, the best one of those that were evaluated; the rest is removed after
the new one is in place, so that at no moment there are fewer than before.

Most are written in the background: a step waits only until everything is copied, which is a tenth of the time on a slow disk
(docs/training/faults.md), and training goes on while the copy is hashed, written and synced. One at a time; the next waits for
it, and so do an evaluation, a stop and the end of the run, so that what is promised to be on disk is.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from duihua.errors import CheckpointError
from duihua.files import read_json, require_space, sha256_file, sync_directory

FORMAT = 2
PREFIX = "step-"
WEIGHTS, TENSORS, STATE, SUMS = "weights.safetensors", "state.safetensors", "state.json", "SHA256SUMS"
HASHED = (WEIGHTS, TENSORS, STATE)


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


class Snapshot(NamedTuple):
    """A copy of everything, which later steps do not change. plain: the state with names in place of its tensors."""

    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]
    plain: Any


def snapshot(weights: dict[str, Tensor], state: dict[str, Any]) -> Snapshot:
    """Copy weights and state into memory of the CPU."""
    tensors: dict[str, Tensor] = {}
    plain = json.loads(json.dumps(split_state(state, "state", tensors)))
    copied = {name: weight.detach().to("cpu", copy=True).contiguous() for name, weight in weights.items()}
    return Snapshot(copied, tensors, plain)


def save_checkpoint(
    folder: Path, step: int, weights: dict[str, Tensor], state: dict[str, Any], keep: int, best: int | None = None
) -> Path:
    """Write checkpoint `step` below `folder` atomically, and remove all but the newest `keep` and that of the step `best`.

    Raises CheckpointError where the file system refuses, DuihuaError where there is no space for it; then the checkpoints
    that were there are untouched.
    """
    return write_snapshot(folder, step, snapshot(weights, state), keep, best)


def write_snapshot(folder: Path, step: int, copied: Snapshot, keep: int, best: int | None = None) -> Path:
    """The second half of `save_checkpoint`: what a background writer does."""
    target = folder / f"{PREFIX}{step:08d}"
    aside = folder / f".part-{os.getpid()}-{step}"
    weights, tensors, plain = copied
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".part-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        needed = sum(t.numel() * t.element_size() for t in (*weights.values(), *tensors.values()))
        require_space(folder, needed + (1 << 20))
        aside.mkdir()
        save_file(weights, aside / WEIGHTS)
        save_file(tensors or {"empty": torch.zeros(1)}, aside / TENSORS)
        text = json.dumps({"format": FORMAT, "step": step, "state": plain}, ensure_ascii=False)
        (aside / STATE).write_text(text, encoding="utf-8")
        sums = "".join(f"{sha256_file(aside / name)}  {name}\n" for name in HASHED)
        (aside / SUMS).write_text(sums, encoding="utf-8")
        for file in aside.iterdir():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        sync_directory(aside)
        if target.exists():
            shutil.rmtree(target)
        os.rename(aside, target)
        sync_directory(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CheckpointError(
            f"cannot write the checkpoint: {reason}",
            where=str(target),
            remedy="Free some space and see that the folder can be written to, then run the same command again; "
            "the checkpoint before it is untouched",
        ) from error
    there = saved_steps(folder)
    newest = [known for known in there if known <= step][-max(1, keep) :]  # one above was damaged and passed over
    for old in there:
        if old not in (*newest, best):
            shutil.rmtree(folder / f"{PREFIX}{old:08d}", ignore_errors=True)
    return target


class BackgroundWriter:
    """Writes snapshots in a thread, one after the other."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def start(self, folder: Path, step: int, copied: Snapshot, keep: int, best: int | None = None) -> None:
        """As `write_snapshot`, without waiting for it. Raises what the one before it raised."""
        self.finish()

        def work() -> None:
            try:
                write_snapshot(folder, step, copied, keep, best)
            except Exception as error:  # whatever it is, it belongs to the thread that trains
                self._error = error

        self._thread = threading.Thread(target=work, name=f"checkpoint {step}")
        self._thread.start()

    def finish(self) -> None:
        """Wait until all that was started is on disk. Raises what went wrong with it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error


def load_newest(folder: Path) -> tuple[int, dict[str, Tensor], dict[str, Any], list[str]] | None:
    """(step, weights, state, what is wrong with those passed over), or None where there is nothing to go on from.

    Raises CheckpointError when there are checkpoints and all of them are damaged.
    """
    damaged: list[str] = []
    for step in reversed(saved_steps(folder)):
        candidate = folder / f"{PREFIX}{step:08d}"
        try:
            weights, state = _read(candidate, step)
        except Exception as error:  # any fault in reading means the same here: this one is damaged
            damaged.append(f"{candidate.name} ({error})")
        else:
            return step, weights, state, damaged
    if damaged:
        raise CheckpointError(
            f"all checkpoints are damaged: {'; '.join(damaged)}",
            where=str(folder),
            remedy="Remove this folder to train the stage again from its start",
        )
    return None


def load_weights(folder: Path, step: int) -> dict[str, Tensor]:
    """The network's tensors of one checkpoint. Raises CheckpointError where it is not there or damaged."""
    candidate = folder / f"{PREFIX}{step:08d}"
    try:
        return _read(candidate, step)[0]
    except Exception as error:
        raise CheckpointError(
            f"the checkpoint cannot be read: {error}", where=str(candidate), remedy="Remove it, or train again"
        ) from error


def saved_steps(folder: Path) -> list[int]:
    """The steps of which there is a checkpoint, whole or damaged, oldest first."""
    names = (path.name.removeprefix(PREFIX) for path in folder.glob(f"{PREFIX}*") if path.is_dir())
    return sorted(int(name) for name in names if name.isdigit())


class _DamagedError(Exception):
    """What is wrong with one checkpoint: a part of the sentence that the readers above say of it."""


def _read(candidate: Path, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    for name, digest in _sums(candidate).items():
        if not (candidate / name).is_file():
            raise _DamagedError(f"{name} is missing")
        if sha256_file(candidate / name) != digest:
            raise _DamagedError(f"{name} was changed after it was written: its SHA-256 differs")
    head = read_json(candidate / STATE)
    if head["step"] != step:
        raise _DamagedError(f"it is of step {head['step']} and was renamed")
    tensors = load_file(candidate / TENSORS)
    return load_file(candidate / WEIGHTS), join_state(head["state"], tensors)


def _sums(candidate: Path) -> dict[str, str]:
    """Name -> SHA-256 of every file that is hashed."""
    if not (candidate / SUMS).is_file():
        head = read_json(candidate / STATE)
        if head.get("format") == 1:  # the older form has the hashes of the other two inside state.json
            return dict(head["sha256"])
        raise _DamagedError(f"{SUMS} is missing")
    lines = (candidate / SUMS).read_text(encoding="utf-8").splitlines()
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    if set(sums) != set(HASHED):
        raise _DamagedError(f"{SUMS} is damaged")
    return sums

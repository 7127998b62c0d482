"""A bundle as a clean Hugging Face directory: in another number format, in several files, without our own keys.

A bundle is such a directory already, so nothing is renamed: the files that other programs read are copied, checkpoints,
metrics and reports stay behind, and the weights pass through one file at a time. Written aside and renamed whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from duihua.errors import BundleError, DuihuaError
from duihua.files import require_space, sync_directory, write_json
from duihua.models.bundle import Bundle
from duihua.models.interop.registry import family_of
from duihua.models.interop.stored import StoredTensor, stored_tensors
from duihua.models.weights import INDEX, WEIGHTS, read_object

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
DTYPE_NAMES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
PORTABLE = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "README.md",
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
    "USE_POLICY*",
)
"""Files beside config.json and the weights that travel with a model."""


@dataclass(frozen=True)
class ExportedDirectory:
    """What was written. bytes: of the weights."""

    directory: Path
    bytes: int
    files: int
    parameters: int
    dtype: str


def export_directory(
    bundle: Bundle, output: Path, dtype: str = "", shard_bytes: int = 0, clean: bool = False
) -> ExportedDirectory:
    """Copy `bundle` to the new directory `output`.

    dtype: f32, f16 or bf16 of the weights, as they are stored where empty. shard_bytes: most bytes of one weight file, a
    larger tensor alone in its own; 0 for one file. clean: leave our key `duihua` out of config.json. Raises BundleError
    for the fast profile, which other programs cannot compute, DuihuaError where `output` exists or cannot be written.
    """
    source = bundle.directory
    if family_of(bundle.config) == "duihua":
        raise BundleError(
            "no class of transformers computes this shape (the fast profile is duihua's own)",
            where=str(source),
            remedy="Serve it with `duihua serve`; pre-train the qwen3 preset for a model that other programs run",
        )
    refuse_existing(output)
    tensors = list(stored_tensors(source))
    shards = _shards(tensors, dtype, shard_bytes)
    total = sum(_size(tensor, dtype) for tensor in tensors)
    require_space(output.parent, total + (32 << 20))
    with written_aside(output) as aside:
        aside.mkdir()
        where: dict[str, str] = {}
        for number, shard in enumerate(shards, start=1):
            name = WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            read = {tensor.name: tensor.read() for tensor in shard}
            if dtype:
                read = {
                    key: value.to(DTYPES[dtype]) if value.is_floating_point() else value for key, value in read.items()
                }
            save_file({key: value.contiguous() for key, value in read.items()}, aside / name, metadata={"format": "pt"})
            with open(aside / name, "rb") as file:
                os.fsync(file.fileno())
            where |= dict.fromkeys(read, name)
        if len(shards) > 1:
            write_json(aside / INDEX, {"metadata": {"total_size": total}, "weight_map": where})
        config = read_object(source / "config.json")
        if dtype:
            config |= {"dtype": DTYPE_NAMES[dtype], "torch_dtype": DTYPE_NAMES[dtype]}
        if clean:
            config.pop("duihua", None)
        copy_portable(source, aside)
        write_json(aside / "config.json", config)
        for weights in aside.glob("*.safetensors"):
            shutil.copymode(aside / "config.json", weights)  # safetensors makes it readable by the owner alone
    stored = config.get("dtype") or config.get("torch_dtype") or ""
    parameters = sum(tensor.parameters for tensor in tensors)
    return ExportedDirectory(output, total, len(shards), parameters, str(stored))


def copy_portable(source: Path, target: Path) -> None:
    """Copy the files that travel with a model, those that are there."""
    for pattern in PORTABLE:
        for file in sorted(source.glob(pattern)):
            if file.is_file():
                shutil.copyfile(file, target / file.name)


@contextmanager
def written_aside(output: Path) -> Iterator[Path]:
    """A path beside `output` for the block to make a directory at; renamed to `output` when the block ends, removed when it
    fails. What the operating system refuses becomes a DuihuaError."""
    aside = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        sync_directory(aside)
        aside.replace(output)
        sync_directory(output.parent)
    except OSError as error:
        raise cannot_write(output, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def refuse_existing(output: Path) -> None:
    """DuihuaError where there is something at `output` already: a finished model is never written over."""
    if output.is_symlink() or (output.exists() and not (output.is_dir() and not any(output.iterdir()))):
        raise DuihuaError(
            "is there already, and nothing is written over", where=str(output), remedy="Choose another --output"
        )


def cannot_write(output: Path, error: OSError) -> DuihuaError:
    """The error of the operating system in a user's words."""
    return DuihuaError(
        f"cannot write: {error.strerror or error}",
        where=str(output),
        remedy="Free some space or choose another folder",
    )


def _size(tensor: StoredTensor, dtype: str) -> int:
    floats = tensor.dtype in ("F64", "F32", "F16", "BF16")
    width = (
        DTYPES[dtype].itemsize if dtype and floats else {"F64": 8, "I64": 8, "F32": 4, "I32": 4}.get(tensor.dtype, 2)
    )
    return tensor.parameters * width


def _shards(tensors: Sequence[StoredTensor], dtype: str, shard_bytes: int) -> list[list[StoredTensor]]:
    """Tensors in their order, a new file where the next would not fit any more."""
    shards: list[list[StoredTensor]] = [[]]
    filled = 0
    for tensor in tensors:
        size = _size(tensor, dtype)
        if shard_bytes and shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += size
    return shards

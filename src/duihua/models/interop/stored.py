"""The files of a model directory as they lie on the disk: what tensors there are, and one tensor at a time.

Why not through the network: export needs each stored tensor once, in the number format that it was stored in, so a model
passes through memory tensor by tensor; and import tells what a directory holds that the network has no use for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from duihua.errors import BundleError
from duihua.models.weights import weight_files

DTYPE_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
"""safetensors' word -> torch's."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file. dtype: as safetensors writes it (F32, BF16, ...)."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    def read(self) -> Tensor:
        """The tensor itself."""
        try:
            with safe_open(self.file, framework="pt") as tensors:
                found: Tensor = tensors.get_tensor(self.name)
                return found
        except (SafetensorError, OSError) as error:
            raise BundleError(
                f"broken safetensors file: {error}", where=str(self.file), remedy="Fetch the file again"
            ) from error


def stored_tensors(directory: Path) -> Iterator[StoredTensor]:
    """What the files hold, from their headers alone."""
    for file, names in weight_files(directory):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in sorted(set(tensors.keys()) & names if names is not None else tensors.keys()):
                    part = tensors.get_slice(name)
                    yield StoredTensor(name, file, part.get_dtype(), tuple(part.get_shape()))
        except (SafetensorError, OSError) as error:
            raise BundleError(
                f"broken safetensors file: {error}", where=str(file), remedy="Fetch the file again"
            ) from error

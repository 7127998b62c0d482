"""What a run was made with and on: versions, processor, memory; and how much memory the process tree holds right now.

The numbers of one process and of the machine are those of training/memory.py.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from duihua.cores import usable_cores
from duihua.training.memory import available_memory, lines_of, own_peak_memory, total_memory
from duihua.version import __version__

__all__ = [
    "GIB",
    "available_memory",
    "machine",
    "own_peak_memory",
    "processor_name",
    "total_memory",
    "tree_memory",
    "versions",
]

PARTS = ("torch", "numpy", "tokenizers", "safetensors")
GIB = 2**30


def versions() -> dict[str, str]:
    """Versions of Duihua, Python and the parts that decide numbers, without importing them."""
    found = {"duihua": __version__, "python": platform.python_version()}
    for name in PARTS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Operating system, processor, cores that this process may use, and memory in GiB."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor_name(),
        "cores": usable_cores(),
        "memory_gib": round(total_memory() / GIB, 1),
    }


def processor_name() -> str:
    """The processor's name as the kernel gives it, else its architecture."""
    for line in lines_of(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def tree_memory() -> int:
    """Bytes that this process and all that it started hold in memory now (on Linux; elsewhere 0)."""
    total, waiting = 0, [os.getpid()]
    while waiting:
        process = waiting.pop()
        for line in lines_of(Path(f"/proc/{process}/status")):
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
        for task in _entries(Path(f"/proc/{process}/task")):
            waiting += [int(child) for line in lines_of(task / "children") for child in line.split()]
    return total


def _entries(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except OSError:
        return []

"""What a run was made with and on: versions, processor, memory; and how much memory the process tree holds right now.

Why /proc and not a library: four numbers are needed, and on Linux the kernel has them as text. Elsewhere the process's
own largest size (getrusage) stands in.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any

from duihua.version import __version__

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
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory() -> int:
    """Bytes of memory of the machine, or of the container where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        for line in _lines(Path(name)):
            if line.strip().isdigit():
                total = min(total, int(line))
    return total


def available_memory() -> int | None:
    """Bytes that could be used without swapping; None where the kernel does not say."""
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return min(int(line.split()[1]) * 1024, total_memory())
    return None


def tree_memory() -> int:
    """Bytes that this process and all that it started hold in memory now (on Linux; elsewhere 0)."""
    total, waiting = 0, [os.getpid()]
    while waiting:
        process = waiting.pop()
        for line in _lines(Path(f"/proc/{process}/status")):
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
        for task in _entries(Path(f"/proc/{process}/task")):
            waiting += [int(child) for line in _lines(task / "children") for child in line.split()]
    return total


def own_peak_memory() -> int:
    """The largest size, in bytes, that this process ever had."""
    for line in _lines(Path("/proc/self/status")):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _lines(path: Path) -> list[str]:
    """Lines of a file of the kernel; none when it is not there or its process has just ended."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _entries(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except OSError:
        return []

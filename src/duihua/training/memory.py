"""How much memory there is, and the most that was held at once.

Why /proc and not a library: three numbers are needed, and on Linux the kernel has them as text. Elsewhere the process's own
largest size (getrusage) stands in. On a GPU torch's allocator counts.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path


def total_memory() -> int:
    """Bytes of memory of the machine, or of the container where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        for line in lines_of(Path(name)):
            if line.strip().isdigit():
                total = min(total, int(line))
    return total


def available_memory() -> int | None:
    """Bytes that could be used without swapping; None where the kernel does not say."""
    for line in lines_of(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return min(int(line.split()[1]) * 1024, total_memory())
    return None


def own_peak_memory() -> int:
    """The largest size, in bytes, that this process ever had, or has had since `forget_peak`."""
    for line in lines_of(Path("/proc/self/status")):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def forget_peak(device: str) -> None:
    """From here on `peak_memory` counts anew; where the system cannot do that (other than Linux) it goes on counting."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()  # else what was kept of tensors that are gone would count
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets VmHWM to the present size


def peak_memory(device: str) -> int:
    """The most bytes that this process held at once since `forget_peak`: of the GPU's memory, or of the machine's."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_reserved(device))
    return own_peak_memory()


def free_memory(device: str) -> int | None:
    """Bytes that training on this device could still take; None where nobody says.

    Of a GPU's, what torch keeps of tensors that are gone counts as free: the driver does not know that.
    """
    if device.startswith("cuda"):
        import torch

        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + kept)
    return available_memory()


def lines_of(path: Path) -> list[str]:
    """Lines of a file of the kernel; none when it is not there or its process has just ended."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []

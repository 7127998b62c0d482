"""Memory that a training step frees stays with the process, for the next step asks for the same again.

Why: glibc takes every block above a threshold (128 KiB to 32 MiB) from the kernel and gives it back on free, and cuts the
top of the heap when enough of it is free. A step on the CPU frees and asks for some hundred megabytes of activations, so
the kernel clears the same pages thousands of times a second: 10,000 page faults a step of the quickstart, some 3 % of its
processor time in the kernel and more where the machine is virtual (docs/log.md). Peak memory is the same, since a step
needs what the one before it needed; only the end of a stage keeps what it might have returned.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""The parameters' numbers in glibc's malloc.h (mallopt(3))."""
KEPT_BYTES = 1 << 30
GROWTH_BYTES = 64 << 20


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell glibc's malloc to keep freed memory; whether it was told.

    Nothing happens where the C library is another, or where the user has set malloc up (MALLOC_*_ or GLIBC_TUNABLES).
    """
    chosen = "GLIBC_TUNABLES" in environment or any(
        name.startswith("MALLOC_") and name.endswith("_") for name in environment
    )
    if chosen or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((MMAP_THRESHOLD, KEPT_BYTES), (TRIM_THRESHOLD, KEPT_BYTES), (TOP_PAD, GROWTH_BYTES))
    taken = [mallopt(number, value) for number, value in settings]  # 1 where malloc took the value
    return all(taken)

"""How many cores there are to use, and how threads wait for each other on cores that others use too."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SPINS = 3000
"""Turns of an empty loop that a thread waits for the others before it sleeps, well below a millisecond."""


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def share_the_cores(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let waiting threads give their core away soon. To be called before torch is imported; what is set already stays.

    GNU's OpenMP, which torch uses on Linux, lets a thread spin for milliseconds before it sleeps. Where another program has
    one of the cores, our two threads take turns on the other, and each wait costs the scheduler's whole slice: a step
    took 29 times as long beside one busy program, and takes 2.3 times as long with this; alone it is as fast
    (benchmarks/busy_machine.py). Sleeping at once (OMP_WAIT_POLICY=passive) is better there and a third slower alone.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", str(SPINS))

"""The clock of the race: from a system's measured speed, how many steps fit into its time.

Why every system is asked anew after every step: a learning-rate schedule runs over steps, and it must end when the time
ends. A number of steps that is fixed beforehand ends too early or too late as soon as the machine is a little slower than
it was when it was measured. So after each step the horizon is (steps done) + (time left) / (mean time of the last steps), for
all systems by the same rule; what starts a process, loads, compiles and measures is in the time. The first two steps, which
compile and allocate, tell nothing about the others and are left out of the mean. Until three more are measured the horizon
is far away, which no schedule sees: all are in their warm-up then.
"""

from __future__ import annotations

import time
from collections.abc import Callable

FAR = 1_000_000
"""The horizon before any speed is known."""
FIRST, MEASURED, RECENT = 2, 3, 50
"""Steps that are not measured; steps that must be measured before a horizon is given; steps that the mean goes over."""


class Pace:
    """Counts steps against `seconds` that began at `started`, both as `clock` has them (default: seconds since 1970, which
    the process that started this one can read too)."""

    def __init__(self, seconds: float, started: float, clock: Callable[[], float] = time.time) -> None:
        self.seconds, self.started, self._clock = seconds, started, clock
        self._ends: list[float] = []

    @property
    def steps(self) -> int:
        """Steps done."""
        return len(self._ends)

    @property
    def elapsed(self) -> float:
        """Seconds from the start to the end of the last step."""
        return self._ends[-1] - self.started if self._ends else 0.0

    def finished_step(self) -> int:
        """To be called behind each step: all steps that fit into the time, those done included; no more than the steps done
        means that the time is over."""
        self._ends.append(self._clock())
        left = self.seconds - self.elapsed
        if left <= 0:
            return self.steps
        if self.steps < FIRST + MEASURED:
            return FAR
        return self.steps + round(left / self.step_seconds())

    def step_seconds(self) -> float:
        """Mean seconds of the last steps, the first two left out where there are others; 0 before two steps are done."""
        if self.steps < 2:
            return 0.0
        since = min(max(FIRST, self.steps - RECENT) - 1, self.steps - 2)
        return max(1e-9, (self._ends[-1] - self._ends[since]) / (self.steps - 1 - since))

    def row(self) -> dict[str, float]:
        """What the race writes down of it. setup_seconds: from the start to the end of the second step."""
        setup = self._ends[min(FIRST, self.steps) - 1] - self.started if self._ends else 0.0
        return {
            "seconds": round(self.elapsed, 2),
            "steps": self.steps,
            "setup_seconds": round(setup, 2),
            "step_seconds": round(self.step_seconds(), 4),
        }

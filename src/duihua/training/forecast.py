"""How long a training will take and how much memory it needs, said once, from its own first steps.

Why from these and not from a formula: operations a second differ between machines, shapes and hours by more than a newcomer
forgives, and the first steps are of this training on this machine. They cost nothing, since they are taken anyway. Stages whose
steps differ (PPO samples replies before the first of several updates) are met by waiting for a few.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from duihua import console
from duihua.training.memory import peak_memory

LEAST_STEPS, LEAST_SECONDS = 8, 3.0
"""The look is taken behind this many steps and this much time, whichever comes later."""
WORTH_SAYING = 10.0
"""Seconds; what is over sooner needs no forecast."""
GIB = 2**30


class Forecast:
    """Ask `look` behind every step. done: steps before this part of the run. clock: seconds."""

    def __init__(
        self, label: str, steps: int, done: int, device: str = "cpu", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.label, self.steps, self.done, self.device, self._clock = label, steps, done, device, clock
        self._began = clock()
        self._said = False

    def look(self, step: int) -> None:
        """`step` steps are done; says the forecast when the time for it has come."""
        taken, passed = step - self.done, self._clock() - self._began
        if self._said or taken < LEAST_STEPS or passed < LEAST_SECONDS:
            return
        self._said = True
        left = (self.steps - step) * passed / taken
        if left < WORTH_SAYING:
            return
        console.say(
            f"{self.label}: about {console.duration(left + passed)} for {self.steps - self.done:,} steps, going by the first "
            f"{taken} ({taken / passed:.3g} a second); memory so far {peak_memory(self.device) / GIB:.2f} GiB"
        )

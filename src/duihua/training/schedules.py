"""Learning-rate schedules: pure functions of the step, and the one that has to remember what it saw.

The warm-up/stable/decay form (Hu et al. 2024, MiniCPM, section 4) keeps the full rate for most of the run and falls
linearly at the end: as good as a cosine, and a run can be prolonged from its stable part.
"""

from __future__ import annotations

import math
from typing import Any

from duihua.training.config import ScheduleConfig


def rate_factor(step: int, steps: int, config: ScheduleConfig) -> float:
    """The factor on the learning rate for step 0 <= step < steps. The first step already has a rate above zero.

    For the kind plateau this is the warm-up alone, to be multiplied by `Plateau.factor`.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    left = steps - max(config.warmup_steps, 0)
    progress = (step - config.warmup_steps) / max(1, left)  # 0 after the warm-up, just under 1 at the last step
    low = config.final_fraction
    if config.kind in ("constant", "plateau"):
        return 1.0
    if config.kind == "linear":
        return low + (1 - low) * (1 - progress)
    if config.kind == "cosine":
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))
    if config.kind == "step":
        falls = (step - config.warmup_steps) // config.step_size
        return max(low, math.pow(config.gamma, falls))
    if config.kind == "noam":  # d^-0.5 min(s^-0.5, s w^-1.5) over its own peak (d w)^-0.5, with s = step + 1
        return max(low, math.sqrt(max(1, config.warmup_steps) / (step + 1)))
    decay_steps = max(1, round(config.decay_fraction * steps))
    falling = (steps - step) / decay_steps
    return low + (1 - low) * min(1.0, falling)


class Plateau:
    """Lowers the rate when the mean training loss of `step_size` steps has not been the lowest for `patience` looks.

    The rule is that of torch.optim.lr_scheduler.ReduceLROnPlateau (mode min, relative threshold, no cool-down).
    """

    def __init__(self, config: ScheduleConfig) -> None:
        self.config = config
        self.factor, self.lowest, self.looks_without = 1.0, math.inf, 0
        self._sum, self._weight, self._steps = 0.0, 0.0, 0

    def observe(self, loss_sum: float, weight: float) -> None:
        """One step's summed loss and its weight; steps without a finite loss are passed over."""
        if not math.isfinite(loss_sum) or not weight:
            return
        self._sum, self._weight, self._steps = self._sum + loss_sum, self._weight + weight, self._steps + 1
        if self._steps == self.config.step_size:
            self.look(self._sum / self._weight)
            self._sum, self._weight, self._steps = 0.0, 0.0, 0

    def look(self, loss: float) -> None:
        """Compare a mean loss with the lowest so far, and lower the factor when patience ends."""
        if loss < self.lowest * (1 - self.config.threshold):
            self.lowest, self.looks_without = loss, 0
        else:
            self.looks_without += 1
        if self.looks_without > self.config.patience:
            self.factor = max(self.config.final_fraction, self.factor * self.config.gamma)
            self.looks_without = 0

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON; `lowest` is None before the first look."""
        lowest = None if math.isinf(self.lowest) else self.lowest
        sums = [self._sum, self._weight, self._steps]
        return {"factor": self.factor, "lowest": lowest, "looks_without": self.looks_without, "sums": sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.factor, self.looks_without = float(state["factor"]), int(state["looks_without"])
        self.lowest = math.inf if state["lowest"] is None else float(state["lowest"])
        self._sum, self._weight, self._steps = float(state["sums"][0]), float(state["sums"][1]), int(state["sums"][2])

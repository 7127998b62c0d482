"""Which steps are not taken: a loss or gradient that is not finite, one that is suddenly far too large, nothing to learn from.

Why a multiple of the running median: a spike of the loss begins with a few gradients that are many times their usual size
(Chowdhery et al. 2022, PaLM, section 5.1, who went back about 100 steps and left the batches out). Clipping bounds how far
such a step goes and not where; not taking it costs one batch. The median of the last norms is what is usual: it follows a
slow change, and a spike does not move it. Norms that were skipped count in it, so that a lasting change is accepted in the
end instead of skipped for ever.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median

import torch

from duihua import console
from duihua.errors import TrainingError

WINDOW = 128
"""Norms that the median is taken of."""
FEWEST = 16
"""Norms before the first judgement: the first steps of a training have large gradients that fall quickly."""


class Spikes:
    """Tells why a step must not be taken. factor: times the median of the last norms that is too much; 0 for no such rule."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self._norms: deque[float] = deque(maxlen=WINDOW)

    def why_not(self, loss: float, norm: float, weight: float) -> str:
        """The reason, or nothing where the step may be taken. norm: of the whole gradient before clipping."""
        if not weight > 0:
            return "there was nothing to learn from: every target is masked"
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return f"loss {loss}, gradient norm {norm}"
        usual = median(self._norms) if self.factor and len(self._norms) >= FEWEST else math.inf
        if self.factor:
            self._norms.append(norm)
        if norm > self.factor * usual:
            return f"gradient norm {norm:.4g}, more than {self.factor:g} times the usual {usual:.4g}"
        return ""

    def state(self) -> list[float]:
        """The last norms, for a checkpoint."""
        return list(self._norms)

    def load_state(self, norms: Sequence[float]) -> None:
        """Go on from a checkpoint."""
        self._norms = deque(norms, maxlen=WINDOW)


class Skips:
    """Counts the steps that were not taken, and ends a training that takes none any more. most: of them in a row."""

    def __init__(self, most: int, label: str) -> None:
        self.most, self.label = most, label
        self.count = 0
        self.in_row = 0

    def took(self) -> None:
        """A step was taken."""
        self.in_row = 0

    def skip(self, step: int, reason: str, scaler: torch.amp.GradScaler | None = None) -> None:
        """A step was not taken. Raises TrainingError with advice where `most` in a row were not."""
        self.count += 1
        self.in_row += 1
        scale = "" if scaler is None else f", loss scale {scaler.get_scale():g}"
        console.say(f"{self.label}: step {step} skipped: {reason}{scale}")
        if self.in_row >= self.most:
            raise TrainingError(
                f"{self.in_row} steps in a row could not be taken (the last one: {reason})",
                where=self.label,
                remedy="Lower the learning rates, or check the data; the last good checkpoint is kept",
            )

    def load(self, count: int, in_row: int) -> None:
        """Go on from a checkpoint."""
        self.count, self.in_row = count, in_row

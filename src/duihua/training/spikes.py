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

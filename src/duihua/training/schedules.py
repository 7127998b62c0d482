"""Learning-rate schedules as pure functions of the step.

The warm-up/stable/decay form (Hu et al. 2024, MiniCPM, section 4) keeps the full rate for most of the run and falls
linearly at the end: as good as a cosine, and a run can be prolonged from its stable part.
"""

from __future__ import annotations

import math

from duihua.training.config import ScheduleConfig


def rate_factor(step: int, steps: int, config: ScheduleConfig) -> float:
    """The factor on the learning rate for step 0 <= step < steps. The first step already has a rate above zero."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    left = steps - max(config.warmup_steps, 0)
    progress = (step - config.warmup_steps) / max(1, left)  # 0 after the warm-up, just under 1 at the last step
    low = config.final_fraction
    if config.kind == "constant":
        return 1.0
    if config.kind == "linear":
        return low + (1 - low) * (1 - progress)
    if config.kind == "cosine":
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))
    decay_steps = max(1, round(config.decay_fraction * steps))
    falling = (steps - step) / decay_steps
    return low + (1 - low) * min(1.0, falling)

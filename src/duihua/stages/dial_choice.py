"""The dial's choice: which size, and how many tokens, once something tells how fast this machine trains a shape.

The speed is asked for through a function, so that the rules can be read and tested without a clock. What is measured for one
size is taken for its neighbours, in operations a second, until they are measured themselves: a size is chosen only when its
own speed is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from duihua.errors import ConfigError
from duihua.models.config import DecoderConfig
from duihua.models.work import training_flops
from duihua.stages.configs.dial import amount, check_complete
from duihua.stages.configs.pretrain import PretrainConfig
from duihua.stages.dial import batch_tokens, best_size, decoder_of, horizon_of, resolve, tokens_of
from duihua.training.scaling_law import Law

START_SIZE = 4
"""What auto measures first."""
MOST_MEASURED = 6
"""Sizes that auto measures at most."""
LEAST_STEPS = 20
"""Fewer updates than this teach nothing; minutes that hold no more are refused."""


@dataclass(frozen=True)
class Measured:
    """What was measured of a shape on this machine. step_seconds: of one update of `step_tokens` tokens; steps: updates timed.
    evaluation_seconds: of scoring the held-out text. memory_bytes: the most that was held meanwhile. start_seconds: of making
    the first weights. looking_seconds: a step's share of the evaluations during training (trainer.evaluate_every)."""

    step_seconds: float
    step_tokens: int
    steps: int
    evaluation_seconds: float
    memory_bytes: int
    start_seconds: float = 0.0
    looking_seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.step_tokens / self.step_seconds

    @property
    def whole_step_seconds(self) -> float:
        """Of an update and its share of the evaluations."""
        return self.step_seconds + self.looking_seconds

    @property
    def pace(self) -> float:
        """Tokens a second, the evaluations counted."""
        return self.step_tokens / self.whole_step_seconds


@dataclass(frozen=True)
class Choice:
    """size: layers of the dial. config: the settings it stands for, without a dial. measured: of just these."""

    size: int
    config: PretrainConfig
    measured: Measured


Measure = Callable[[PretrainConfig], Measured]
"""Times settings without a dial."""
Pieces = Callable[[DecoderConfig, int], int]
"""(shape, rows of a step) -> micro-batches that the memory asks for."""


def choose(
    config: PretrainConfig,
    law: Law,
    vocabulary_size: int,
    measure: Measure,
    pieces: Pieces = lambda shape, rows: 1,
    spent: Callable[[], float] = lambda: 0.0,
) -> Choice:
    """Settings for a config whose dial is set. spent: seconds of the stage that are gone by now, which minutes include.

    Raises ConfigError where the dial is told only half, or where the minutes hold no training.
    """
    check_complete(config, config.kept())
    found: dict[tuple[int, int], Measured] = {}
    known: dict[int, Measured] = {}
    seconds = math.inf if config.minutes is None else 60 * amount("minutes", config.minutes)

    def settings(size: int, horizon: float) -> PretrainConfig:
        shape = decoder_of(config, size, vocabulary_size)
        rows = max(1, round(batch_tokens(horizon) / config.length))
        return resolve(config, size, horizon, pieces(shape, rows))

    def measured(size: int, horizon: float) -> Measured:
        wanted = settings(size, horizon)
        key = (size, wanted.rows * wanted.micro_batches)
        if key not in found:
            found[key] = known[size] = measure(wanted)
        return found[key]

    def horizon(size: int) -> float:
        shape = decoder_of(config, size, vocabulary_size)
        near = known.get(size) or known[min(known, key=lambda other: abs(math.log(other / size)))] if known else None

        def speed() -> float:
            assert near is not None
            if size in known:
                return known[size].pace
            like = decoder_of(config, next(other for other in known if known[other] is near), vocabulary_size)
            return near.pace * training_flops(like, 1) / training_flops(shape, 1)

        left = seconds - spent() - (near.evaluation_seconds + near.start_seconds if near else 0.0)
        if near is not None and left <= 0:
            raise too_short(size, near)
        return horizon_of(config, shape, left, speed)

    def too_short(size: int, near: Measured) -> ConfigError:
        needed = spent() + near.start_seconds + near.evaluation_seconds + LEAST_STEPS * near.whole_step_seconds
        return ConfigError(
            f"{config.minutes:g} minutes are too short: loading, measuring, {LEAST_STEPS} updates of size {size} and scoring "
            f"take about {needed / 60:.1f}",
            where="minutes",
            remedy="Give it more of them, or a smaller size",
        )

    automatic = config.size == "auto" or config.size is None
    if config.minutes is not None:
        measured(START_SIZE if automatic else int(config.size or 0), 1.0)
    size = best_size(config, law, vocabulary_size, horizon) if automatic else int(config.size or 0)
    while automatic and config.minutes is not None and size not in known and len(known) < MOST_MEASURED:
        measured(size, horizon(size))
        size = best_size(config, law, vocabulary_size, horizon)
    tokens = horizon(size)
    own = measured(size, tokens)  # at the batch that belongs to this horizon
    if config.minutes is not None:
        known[size] = own
        tokens = horizon(size)
        own = measured(size, tokens)
        if tokens < LEAST_STEPS * own.step_tokens:
            raise too_short(size, own)
    final = settings(size, tokens)
    assert tokens_of(final) > 0
    return Choice(size, final, own)

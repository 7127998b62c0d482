"""The dial: one number for the size and one for how long, and every other setting of pre-training follows.

Pure arithmetic: no clock, no network (stages/dial_plan.py measures). Three kinds of numbers come together here, and
docs/training/dial.md names for each setting which kind it is:

- rules. The shape: size s is s layers, 48 s wide, in heads of 64 (size 4 is the quickstart's, which docs/log.md compares with
  wider ones). The batch grows with the horizon to the power 0.383 (Bergsma et al. 2025, Power Lines), from the quickstart's;
  rates grow with the root of the batch (Malladi et al. 2022), and those of embedding and head fall with the root of the width;
  first weights are counted wherever the shape allows it (models/bigram_start.py);
- the law (training/scaling_law.py), fitted to runs: the size for a horizon;
- measured on this machine, now: how many tokens a second, hence how many steps fit into the minutes.

What was stated stays: `PretrainConfig.kept()`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from duihua.models.config import DecoderConfig
from duihua.models.presets import preset
from duihua.models.work import multiplying_weights, training_flops
from duihua.stages.configs.dial import HORIZONS, MOST_SIZE, amount
from duihua.stages.configs.pretrain import PretrainConfig
from duihua.training.scaling_law import Law

HEAD_WIDTH = 64
WIDTH_PER_LAYER = 48
FEED_FORWARD_STEP = 64
REFERENCE_WIDTH, REFERENCE_BATCH, REFERENCE_TOKENS = 192, 2048, 1.5e6
"""The quickstart: its rates, its batch and its horizon were compared with others (docs/log.md, 2026-11-21)."""
COUNTED_EMBEDDING = 0.5
"""What the embedding's rate is multiplied by where it starts from counted bigrams, which it would else spoil (docs/log.md,
2026-11-22)."""
BATCH_EXPONENT = 0.383
LEAST_AUTO = 2
"""What auto chooses at least. One layer cannot look for what followed the same word before, which takes two (Olsson et al.
2022); its bits per byte may be low for a budget of minutes, but nothing built on it could answer."""
LEAST_BATCH, MOST_BATCH = 2048, 524_288
WARMUP_SHARE, LEAST_WARMUP, MOST_WARMUP_SHARE = 0.01, 10, 0.1
"""Warm-up: 1 % of the steps, at least 10 of them, at most a tenth."""


def dialled_shape(config: PretrainConfig, size: int) -> dict[str, Any]:
    """The six sizes of a decoder of `size` layers in the family of `config.shape.preset`; what is stated goes first, and what
    follows from it follows the stated one."""
    family = preset(config.shape.preset)
    width = _stated(config, "width", HEAD_WIDTH * math.ceil(WIDTH_PER_LAYER * size / HEAD_WIDTH))
    head_width = _stated(config, "head_width", HEAD_WIDTH)
    heads = _stated(config, "heads", max(1, width // head_width))
    shared = heads if family.key_value_heads == family.heads else _largest_divisor(heads, max(1, heads // 2))
    hidden = 8 * width / 3 if (family.gated if config.shape.gated is None else config.shape.gated) else 4 * width
    return {
        "width": width,
        "layers": _stated(config, "layers", size),
        "heads": heads,
        "key_value_heads": _stated(config, "key_value_heads", shared),
        "head_width": head_width,
        "feed_forward_width": _stated(
            config, "feed_forward_width", FEED_FORWARD_STEP * math.ceil(hidden / FEED_FORWARD_STEP - 1e-9)
        ),
    }


def batch_tokens(horizon: float) -> int:
    """Tokens of a step for a horizon in tokens: a power of two, never less than the quickstart's.

    1.5 million tokens -> 2,048; 100 million -> 8,192.
    """
    wished = REFERENCE_BATCH * (horizon / REFERENCE_TOKENS) ** BATCH_EXPONENT
    return int(min(MOST_BATCH, max(LEAST_BATCH, 2 ** round(math.log2(max(1.0, wished))))))


def warmup_steps(steps: int) -> int:
    """760 -> 10, 3,000 -> 30, 40 -> 4."""
    return max(1, min(round(MOST_WARMUP_SHARE * steps), max(LEAST_WARMUP, round(WARMUP_SHARE * steps))))


def resolve(config: PretrainConfig, size: int, horizon: float, micro_batches: int = 1) -> PretrainConfig:
    """The settings without a dial that `config`'s dial stands for at this size and horizon (tokens).

    micro_batches: into how many pieces the memory asks the step to be cut.
    """
    kept = set(config.kept())
    shape = dataclasses.replace(config.shape, **dialled_shape(config, size))
    width = dialled_shape(config, size)["width"]
    if "rows" in kept:
        rows, pieces = config.rows, config.micro_batches
    else:
        pieces = config.micro_batches if "micro_batches" in kept else micro_batches
        rows = max(1, round(batch_tokens(horizon) / config.length / pieces))
    step_tokens = rows * pieces * config.length
    steps = config.steps if "steps" in kept else max(1, round(horizon / step_tokens))
    by_batch, by_width = math.sqrt(step_tokens / REFERENCE_BATCH), math.sqrt(REFERENCE_WIDTH / width)
    plain = PretrainConfig().optimizer
    start = config.start if "start" in kept or not shape.starts_from_bigrams() else "bigrams"
    by_start = COUNTED_EMBEDDING if start == "bigrams" else 1.0
    rates: dict[str, Any] = {
        "matrix_learning_rate": plain.matrix_learning_rate * by_batch,
        "embedding_learning_rate": plain.embedding_learning_rate * by_batch * by_width * by_start,
        "head_learning_rate": plain.head_learning_rate * by_batch * by_width,
    }
    rates = {name: rate for name, rate in rates.items() if f"optimizer.{name}" not in kept}
    schedule = config.schedule
    if "schedule.warmup_steps" not in kept:
        schedule = dataclasses.replace(schedule, warmup_steps=warmup_steps(steps))
    off: dict[str, Any] = dict.fromkeys(("size", *HORIZONS))
    return dataclasses.replace(
        config,
        shape=shape,
        rows=rows,
        micro_batches=pieces,
        steps=steps,
        optimizer=dataclasses.replace(config.optimizer, **rates),
        schedule=schedule,
        start=start,
        **off,
        keep=(),
    )


def tokens_of(config: PretrainConfig) -> int:
    """All tokens that settings without a dial train on."""
    return config.rows * config.micro_batches * config.length * config.steps


def decoder_of(config: PretrainConfig, size: int, vocabulary_size: int) -> DecoderConfig:
    """The shape of the dial at `size`."""
    shape = dataclasses.replace(config.shape, **dialled_shape(config, size))
    return shape.decoder(vocabulary_size, config.length)


def horizon_of(
    config: PretrainConfig, shape: DecoderConfig, seconds: float, tokens_per_second: Callable[[], float]
) -> float:
    """The tokens that the dial stands for with this shape. seconds: of training, where minutes are given, and only then is the
    speed asked for."""
    if "steps" in config.kept():
        return float(tokens_of(config))
    if config.tokens is not None:
        return amount("tokens", config.tokens)
    if config.budget is not None:
        return amount("budget", config.budget) / training_flops(shape, 1)
    return seconds * tokens_per_second()


def best_size(config: PretrainConfig, law: Law, vocabulary_size: int, horizon: Callable[[int], float]) -> int:
    """The size that the law lets end lowest, each with its own horizon in tokens; from `LEAST_AUTO` on."""

    def bits(size: int) -> float:
        shape = decoder_of(config, size, vocabulary_size)
        return law.curve.bits(multiplying_weights(shape), max(1.0, horizon(size)))

    return min(range(LEAST_AUTO, MOST_SIZE + 1), key=bits)


def derived_settings(before: PretrainConfig, after: PretrainConfig) -> dict[str, Any]:
    """Dotted name -> value of what the dial has set."""
    from duihua.stages.configs.dial import DERIVED

    kept = set(before.kept())
    return {name: _value(after, name) for name in DERIVED if name not in kept}


def _value(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def _stated(config: PretrainConfig, name: str, otherwise: int) -> int:
    stated = getattr(config.shape, name)
    return otherwise if stated is None else int(stated)


def _largest_divisor(number: int, most: int) -> int:
    return next(candidate for candidate in range(most, 0, -1) if number % candidate == 0)

"""The dial's part of the pre-training settings: what it may set, and which requests contradict each other. No torch here.

Why it must know what was stated and not only what differs from the default: `--rows 8` is a wish even where 8 is the
default. So the command line and a recipe say which names were written (`stated`), and the dial leaves those alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from duihua import console
from duihua.config.quantity import quantity
from duihua.errors import ConfigError
from duihua.training.config import OptimizerConfig

MUON_RATES = ("matrix_learning_rate", "embedding_learning_rate", "head_learning_rate", "scalar_learning_rate")

MOST_SIZE = 40
"""Layers; a shape of 40 layers has about two thousand million parameters."""
SHAPE = ("width", "layers", "heads", "key_value_heads", "head_width", "feed_forward_width")
RATES = ("matrix_learning_rate", "embedding_learning_rate", "head_learning_rate")
DERIVED = (
    *(f"shape.{name}" for name in SHAPE),
    "rows",
    "micro_batches",
    "steps",
    *(f"optimizer.{name}" for name in RATES),
    "schedule.warmup_steps",
    "start",
)
"""What the dial sets where it is not stated."""
HORIZONS = ("minutes", "tokens", "budget")


def amount(name: str, value: Any) -> float:
    """A horizon as a number. ConfigError unless it is one above 0."""
    example = {"minutes": "10", "tokens": "10M", "budget": "1e15"}[name]
    try:
        found = quantity(value)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise ConfigError(f"must be a number above 0, found {value}", where=name, remedy=f"Write it as {example}")
    if name == "tokens" and found < 1:
        raise ConfigError(f"must be at least one token, found {value}", where=name, remedy="Write it as 10M")
    return found


def check_dial(config: Any, kept: Sequence[str]) -> None:
    """Raise ConfigError where a PretrainConfig asks its dial for what cannot be, or for two things at once."""
    given = [name for name in HORIZONS if getattr(config, name) is not None]
    size = config.size
    for name in given:
        amount(name, getattr(config, name))
    if isinstance(size, int) and not 1 <= size <= MOST_SIZE:
        raise ConfigError(
            f"must be between 1 and {MOST_SIZE} layers, or auto, found {size}",
            where="size",
            remedy="4 is the quickstart's; `duihua pretrain --help` says what it sets",
        )
    if len(given) > 1:
        raise ConfigError(
            f"{' and '.join(given)} set the same thing, how long to train",
            where=given[1],
            remedy="State one of them",
        )
    if "steps" in kept and given:
        raise ConfigError(
            f"{given[0]} and steps set the same thing, how long to train",
            where=given[0],
            remedy=f"Leave out steps, or {given[0]}",
        )
    if size == "auto" and "tokens" in given:
        raise ConfigError(
            "on a given number of tokens the law prefers the largest size always",
            where="size",
            remedy="State a size beside tokens, or minutes or budget beside auto",
        )
    if size == "auto" and "tokens" in given:
        raise ConfigError(
            "on a given number of tokens the law prefers the largest size always",
            where="size",
            remedy="State a size beside tokens, or minutes or budget beside auto",
        )
    unknown = [name for name in config.keep if name not in DERIVED]
    if unknown:
        raise ConfigError(f"the dial does not set {unknown[0]!r}", where="keep", remedy=f"It sets {', '.join(DERIVED)}")


def check_complete(config: Any, kept: Sequence[str]) -> None:
    """Raise ConfigError where a dialled PretrainConfig says only half of how large and how long. Not part of its own check: one
    half may stand in a file and the other in a flag."""
    given = [name for name in HORIZONS if getattr(config, name) is not None]
    if config.size is not None and not given and (config.size == "auto" or "steps" not in kept):
        more = "" if config.size == "auto" else ", or tokens, or steps"
        raise ConfigError(
            "says how large, not for how long", where="size", remedy=f"State minutes or budget beside it{more}"
        )
    if config.size is None and "tokens" in given:
        raise ConfigError(
            "says for how long, not how large", where="tokens", remedy="State a size beside it, such as size 4"
        )


def names_in(mapping: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    """Dotted names of what a mapping states, lists as one."""
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from names_in(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}"


def names_of_flags(words: Sequence[str]) -> Iterable[str]:
    """`--optimizer.head-learning-rate=0.1` -> `optimizer.head_learning_rate`."""
    for word in words:
        if word.startswith("--"):
            yield word[2:].partition("=")[0].replace("-", "_")


def unused_rates(config: Any, names: Iterable[str]) -> Iterable[tuple[str, str, str]]:
    """(name, kind of its optimizer, the rates which that one uses) of each stated rate that has no effect.

    Nothing of an optimizer of which a rate that it uses is stated too, as where all settings are written down."""
    stated = set(names)
    for name in sorted(stated):
        *path, rate = name.split(".")
        part = config
        for step in path:
            part = getattr(part, step, None)
        if isinstance(part, OptimizerConfig) and rate in ("learning_rate", *MUON_RATES):
            used = MUON_RATES if part.kind == "muon" else ("learning_rate",)
            if not stated & {".".join((*path, other)) for other in used}:
                yield name, part.kind, ", ".join(used)


def stating(config: Any, names: Iterable[str], where: str) -> Any:
    """The config of any stage, told what was written down if it has a dial; `where` is the stage's name, for errors. Rates that
    were written down and that the kind of optimizer does not use are told."""
    names = list(names)
    for name, kind, used in unused_rates(config, names):
        console.warn(f"{where}.{name} has no effect: an optimizer of kind {kind} uses {used}")
    if not hasattr(config, "stating"):
        return config
    try:
        return config.stating(names)
    except ConfigError as error:
        raise ConfigError(error.problem, where=f"{where}.{error.where}", remedy=error.remedy) from error

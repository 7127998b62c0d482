"""What a recipe costs: as it states it, scaled by what its stages have taken here so far, and compared at the end.

Why stated and not measured: a recipe's stages are of many kinds (a tokenizer, rollouts, an evaluation), and the only thing that
measures all of them is running them. So a recipe may say what it took where it was measured, stage by stage; after each stage
the rest is told at the pace of this machine, and every training says its own time from its first steps
(training/forecast.py). No product of matrices is timed to compare machines: on a busy one that misleads by a factor of five.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from duihua.console import duration
from duihua.errors import ConfigError

HOLDS = 0.2
EARLY = 0.25
"""Of the stated time: when so much has run here, the whole is foretold at this machine's pace, and held to that."""


@dataclass(frozen=True)
class RecipeCost:
    """What a recipe took where it was measured."""

    machine: str = ""
    """Where: processor, cores, threads."""
    memory_gib: float = 0.0
    """The most memory that it held."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of each stage, by its name."""
    without_bf16: RecipeCost | None = None
    """The same where a processor does not multiply bf16 by itself: its stages are slower, and not all as much."""

    def __post_init__(self) -> None:
        if not 0 < self.memory_gib < math.inf:
            raise ConfigError(
                f"must be above 0, found {self.memory_gib}",
                where="memory_gib",
                remedy="Set a larger number, or leave it out",
            )
        for name, seconds in self.seconds.items():
            if not 0 < seconds < math.inf:
                raise ConfigError(
                    f"must be above 0, found {seconds}",
                    where=f"seconds.{name}",
                    remedy="Set a larger number, or leave it out",
                )

    def on(self, bf16: bool) -> RecipeCost:
        """What is stated for a machine that multiplies bf16 by itself, or for one that does not; this where only one is."""
        return self if bf16 or self.without_bf16 is None else self.without_bf16

    @property
    def minutes(self) -> float:
        return sum(self.seconds.values()) / 60


def cost_line(cost: RecipeCost, stages: Sequence[str]) -> str:
    """Before anything runs: time and memory of these stages."""
    known = sum(cost.seconds.get(name, 0.0) for name in stages)
    return (
        f"These stages took {duration(known)} and {cost.memory_gib:.2f} GiB of memory on {cost.machine}; each training says "
        "from its first steps what it takes here"
    )


def rest_line(cost: RecipeCost, done: Mapping[str, float], names: Sequence[str]) -> str | None:
    """After a stage: the rest, at the pace of the stages that ran here. done: name -> seconds; names: of all that are to run.

    None where nothing is left, or nothing is known of what ran or of what is left.
    """
    left = [name for name in names if name not in done]
    pace = _pace(cost, done)
    if not left or pace is None or any(name not in cost.seconds for name in left):
        return None
    rest = pace * sum(cost.seconds[name] for name in left)
    return f"about {duration(rest)} left for {', '.join(left)} ({pace:.2f} times what it took on {cost.machine})"


def foretold(cost: RecipeCost, done: Mapping[str, float], names: Sequence[str]) -> dict[str, Any] | None:
    """The whole recipe's minutes at the pace of the stages that ran here, {"after", "minutes", "pace"}. done: name -> seconds,
    in the order of the recipe; names: of all stages.

    None as long as these are less than EARLY of it, where nothing is left, or where nothing is known of some stage.
    """
    pace = _pace(cost, done)
    if pace is None or len(done) == len(names) or any(name not in cost.seconds for name in names):
        return None
    if sum(cost.seconds[name] for name in done) < EARLY * 60 * cost.minutes:
        return None
    return {"after": list(done)[-1], "minutes": pace * cost.minutes, "pace": pace}


def _pace(cost: RecipeCost, done: Mapping[str, float]) -> float | None:
    """Seconds here for each that was stated, over the stages that ran; None where nothing is known of any."""
    known = [name for name in done if name in cost.seconds]
    return sum(done[name] for name in known) / sum(cost.seconds[name] for name in known) if known else None


def compared(
    cost: RecipeCost, minutes: float, memory_gib: float, told: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Stated and achieved, as the report shows them. told: what `foretold` said.

    "held" is None for stated minutes where the first stages showed a machine of another pace: nothing was said of this one.
    """
    found: dict[str, Any] = {"machine": cost.machine}
    figures = [("memory_gib", cost.memory_gib, memory_gib)]
    if cost.seconds:
        figures.append(("minutes", cost.minutes, minutes))
    if told is not None:
        figures.append(("minutes_here", float(told["minutes"]), minutes))
    for name, predicted, achieved in figures:
        ratio = achieved / predicted
        found[name] = {"predicted": predicted, "achieved": achieved, "ratio": ratio, "held": abs(ratio - 1) <= HOLDS}
    if told is not None and abs(told["pace"] - 1) > HOLDS:
        found["minutes"]["held"] = None
    return found

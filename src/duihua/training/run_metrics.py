"""The figures of a training as they are logged: means since the last line of metrics.jsonl, and what an evaluation found.

Why means of sums: a line stands for all steps since the one before it, each with the weight that it had in its own gradient,
and the window goes into the checkpoint, so that a run that was interrupted between two lines writes the same next line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from duihua.training.metrics_file import cut_metrics, read_metrics, write_line
from duihua.training.ranks import Ranks


class RunMetrics:
    """`directory`/metrics.jsonl, which the first rank writes. last: the means of the last line."""

    def __init__(self, directory: Path, ranks: Ranks) -> None:
        self.path, self.ranks = directory / "metrics.jsonl", ranks
        self.last: dict[str, float] = {}
        self._window: dict[str, tuple[float, float]] = {}

    def add(self, sums: Mapping[str, tuple[float, float]]) -> None:
        """(sum, weight) of each figure of a step."""
        for name, (value, count) in sums.items():
            old = self._window.get(name, (0.0, 0.0))
            self._window[name] = (old[0] + value, old[1] + count)

    def log(self, step: int, tokens: int, shown: Mapping[str, float], seconds: float) -> None:
        """Write a line: what the last step showed, and over it the means since the line before."""
        self.last = {name: value / count for name, (value, count) in self._window.items() if count}
        self._window = {}
        self.write({"step": step, "tokens": tokens, **shown, **self.last, "seconds": round(seconds, 3)})

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line as it is."""
        if self.ranks.first:
            write_line(self.path, line)

    def cut(self, last_step: int) -> None:
        """Drop the lines of steps that will be run again."""
        if self.ranks.first:
            cut_metrics(self.path, last_step)

    def evaluated(self, step: int) -> bool:
        """Whether a line of an evaluation of this step stands there; the same answer on every rank, all of which must ask."""
        lines = (line for line in read_metrics(self.path) if line.get("step") == step)
        return not self.ranks.share(all("learning_rate" in line for line in lines))

    def window(self) -> dict[str, list[float]]:
        """The sums since the last line, for a checkpoint."""
        return {name: list(pair) for name, pair in self._window.items()}

    def load(self, window: Mapping[str, Any], last: Mapping[str, float]) -> None:
        """Go on from a checkpoint."""
        self._window = {name: (pair[0], pair[1]) for name, pair in window.items()}
        self.last = dict(last)

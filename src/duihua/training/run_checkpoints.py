"""The checkpoints of one training: where they lie, which of them stay, and that they belong to this network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from duihua import console
from duihua.errors import TrainingError
from duihua.training.checkpoints import BackgroundWriter, load_newest, load_weights, saved_steps, snapshot
from duihua.training.config import TrainerConfig
from duihua.training.metrics_file import best_step, sync_metrics
from duihua.training.network_state import changing
from duihua.training.ranks import Ranks


class RunCheckpoints:
    """`directory`/checkpoints, beside metrics.jsonl."""

    def __init__(self, directory: Path, config: TrainerConfig, label: str = "", evaluates: bool = True) -> None:
        """evaluates: whether something is measured on the way. Raises TrainingError where evaluations are asked for and there
        is nothing to measure, or the best checkpoint without evaluations."""
        if config.evaluate_every and not evaluates:
            raise TrainingError(
                "evaluations during training are asked for, and there is nothing that this training could measure",
                where=f"{label or 'trainer'}, evaluate_every",
                remedy="Set it to 0, or give data with a held-out part to a stage that measures on it",
            )
        if config.keep_best and not (evaluates and config.evaluate_every):
            raise TrainingError(
                "a best checkpoint needs evaluations during training, and there are none",
                where=f"{label or 'trainer'}, keep_best",
                remedy="Set evaluate_every (a stage that does not evaluate while it trains has no best)",
            )
        self.folder, self.metrics = directory / "checkpoints", directory / "metrics.jsonl"
        self.config, self.label = config, label
        self._writer = BackgroundWriter()

    def __enter__(self) -> RunCheckpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Nothing is left in the making when a run ends, however it ends."""
        try:
            self.finish()
        except Exception:
            if kind is None:  # else the run has an error of its own to tell
                raise

    def write(self, step: int, network: nn.Module, state: dict[str, Any], wait: bool = True) -> None:
        """A checkpoint of `step`, after the lines of metrics.jsonl up to it; those that need not stay are removed.

        wait: until it is on disk; else it is written while training goes on, and what goes wrong is raised by the next one.
        """
        self.finish()
        sync_metrics(self.metrics)
        best = self.best_step() if self.config.keep_best else None
        self._writer.start(self.folder, step, snapshot(changing(network), state), self.config.keep_checkpoints, best)
        if wait:
            self.finish()

    def finish(self) -> None:
        """Wait until the last checkpoint is on disk. Raises CheckpointError where it could not be written."""
        self._writer.finish()

    def load(self, network: nn.Module, frozen: str, ranks: Ranks) -> tuple[int, dict[str, Any]] | None:
        """Put the newest whole checkpoint's weights into `network` and give its step and state, or None where there is none.

        The first rank reads, and all get it. Raises CheckpointError where all are damaged, TrainingError where they are of
        another network, or of one beside other frozen weights (`frozen`: their fingerprint).
        """
        found = ranks.share_state(load_newest(self.folder) if ranks.first else None)
        if found is None:
            return None
        step, weights, state, damaged = found
        for name in damaged:
            console.say(f"{self.label}: passed over a damaged checkpoint, {name}")
        if state.get("frozen", "") != frozen:
            raise TrainingError(
                "the checkpoint was made beside other frozen weights",
                where=str(self.folder),
                remedy="Start from the same model as before, or choose another output",
            )
        network.load_state_dict(weights, strict=False)
        missing = set(changing(network)) - set(weights)
        if missing:
            raise TrainingError(
                f"the checkpoint lacks {', '.join(sorted(missing)[:5])}",
                where=str(self.folder),
                remedy="It belongs to another model; remove the folder or choose another output",
            )
        return int(step), dict(state)

    def check_figures(self, found: Mapping[str, float | str]) -> None:
        """Raise TrainingError where an evaluation does not measure what the best is chosen by."""
        wanted = self.config.keep_best
        if wanted and wanted not in found:
            raise TrainingError(
                f"an evaluation measures {', '.join(found) or 'nothing'}, and not {wanted!r}",
                where=f"{self.label or 'trainer'}, keep_best",
                remedy="Name one of these",
            )

    def best_step(self) -> int | None:
        """Of the checkpoints on disk, the one whose evaluation was best by the metric that is kept."""
        return best_step(
            self.metrics, self.config.keep_best, self.config.best_is == "highest", saved_steps(self.folder)
        )

    def put_best(self, network: nn.Module) -> None:
        """Go on with the weights of the best checkpoint."""
        best = self.best_step()
        if best is None:
            raise TrainingError(
                "there was no evaluation whose checkpoint is best",
                where=f"{self.label or 'trainer'}, end_with",
                remedy="Make evaluate_every smaller than the number of steps",
            )
        network.load_state_dict(load_weights(self.folder, best), strict=False)
        console.say(f"{self.label}: kept the weights of step {best}, the best by {self.config.keep_best}")

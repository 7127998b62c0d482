"""The doctor beside a training that goes on: each problem is said once, after the rollout that first shows it.

Why while it trains: a run that has begun to please the reward model by short or repeated replies goes on doing so for hours,
and its log shows it after a few rollouts. What is asked is what `duihua doctor ppo` asks of the same figures
(ppo_doctor.py); notes are left to it. Nothing here draws a random number or changes what is learnt. The figures of earlier
rollouts are read from the stage's folder, so that a run that goes on after an interruption is compared with its real beginning.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from duihua import console
from duihua.stages.ppo_doctor import findings_so_far
from duihua.stages.ppo_log import METRICS
from duihua.training.metrics_file import read_metrics
from duihua.training.ranks import current


class LiveDoctor:
    """Says each new problem of the rollouts of one stage, on the first rank alone. directory: the stage's; without one there
    is no log and nothing is said. said: the checks that have spoken."""

    def __init__(self, stage: str, directory: Path | None) -> None:
        self.stage, self.directory = stage, directory
        self.said: set[str] = set()

    def look(self, iteration: int, figures: Mapping[str, float]) -> None:
        """Warn of what the rollouts so far and this one show. figures: of this one, by the names of ROLLOUT_METRICS."""
        if self.directory is None or not current().first:
            return
        rows = [*read_metrics(self.directory / METRICS), figures]
        for finding in findings_so_far(rows):
            if finding.state == "problem" and finding.check not in self.said:
                self.said.add(finding.check)
                console.warn(
                    f"{self.stage}, rollout {iteration}: {finding.check}: {finding.found}. {finding.meaning}. "
                    f"{finding.remedy}."
                )

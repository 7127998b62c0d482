"""The trainer of a stage: what its settings and its context say, in one place for all stages that are set up alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import nn

from duihua.stages.context import StageContext
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from duihua.training.trainer import BatchSource, Loss, Trainer


class TrainingSettings(Protocol):
    """What a stage's config says about its training."""

    @property
    def optimizer(self) -> OptimizerConfig: ...
    @property
    def schedule(self) -> ScheduleConfig: ...
    @property
    def trainer(self) -> TrainerConfig: ...


def stage_trainer(
    label: str,
    config: TrainingSettings,
    context: StageContext,
    network: nn.Module,
    loss: Loss,
    batches: BatchSource,
    *,
    steps: int,
    evaluate: Callable[[int], Mapping[str, float | str]] | None = None,
    facts: Mapping[str, float] | None = None,
) -> Trainer:
    """A trainer in the stage's folder, on its device, with its seed. Raises TrainingError."""
    return Trainer(
        network,
        loss,
        batches,
        steps=steps,
        optimizer=config.optimizer,
        schedule=config.schedule,
        config=config.trainer,
        directory=context.directory,
        device=context.device,
        seed=context.seed,
        evaluate=evaluate,
        label=label,
        facts=facts,
    )

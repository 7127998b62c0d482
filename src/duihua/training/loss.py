"""What a stage gives to the Trainer, a loss and a source of batches, and what it gets back.

Why a loss returns a sum and a weight instead of a mean: the gradient is divided by the weight of the whole step, so that
splitting a batch into micro-batches, padding it, or spreading it over ranks cannot change what is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias

from torch import Tensor, nn

Batch: TypeAlias = dict[str, Tensor]


class LossParts(NamedTuple):
    """What a loss gives back for one micro-batch.

    sum: the summed loss with its graph. weight: what to divide by (usually the number of target tokens). metrics: further
    (sum, weight) pairs, detached, shown as their ratio over the step.
    """

    sum: Tensor
    weight: float
    metrics: Mapping[str, tuple[float, float]] = MappingProxyType({})


Loss = Callable[[nn.Module, Batch], LossParts]


class BatchSource(Protocol):
    """Where batches come from; its state goes into the checkpoint. One that can be spread over ranks has `share` too."""

    def next(self) -> list[Batch]:
        """The micro-batches of one step."""

    def state_dict(self) -> dict[str, Any]:
        """Where the next step starts; with several ranks asked for on each, and the same on each."""

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class TrainingResult:
    """loss: mean over the last logged steps. seconds and tokens count all parts of an interrupted run."""

    steps: int
    tokens: int
    loss: float
    seconds: float
    skipped_steps: int
    last_metrics: dict[str, float] = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

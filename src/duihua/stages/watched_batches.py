"""Looking at the validation text while a model trains: the best weights are kept, the rate falls, averaging begins.

Why a source of batches does this: whatever a look decides must be in the checkpoint, or a run that was interrupted ends
elsewhere. A checkpoint is written before the Trainer evaluates, so a decision made there would be lost with the process. Here
it is made when the next batch is asked for: what a look changes is always stored with the step after it, and a run that goes
on from the checkpoint before the look makes the same look again.

- Best weights: of all looks, those with the lowest validation loss (Merity et al. 2018 and all before report these).
- Plateau: the look is handed to the Trainer's `Plateau`, so the rate falls when validation no longer gets better
  (Zaremba et al. 2014's schedule by rule instead of by hand).
- Non-monotonically triggered averaging (Merity et al. 2018, algorithm 1): when a look is worse than the best one that is
  more than `patience` looks old, the mean of all weights from there on becomes the model that is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from duihua.training.micro_batches import Divisible, Restartable
from duihua.training.schedules import Plateau
from duihua.training.trainer import Batch, BatchSource


class Look(Protocol):
    """Measures the network as it is: mean loss on the validation text, in nats a token."""

    def __call__(self) -> float: ...


class WatchedBatches:
    """`batches`, with a look at the network every `every` steps. plateau: the Trainer's, set when there is one."""

    def __init__(
        self, batches: BatchSource, network: nn.Module, look: Look, every: int, averaging_patience: int = 0
    ) -> None:
        self.batches, self.network, self.every = batches, network, every
        self.averaging_patience = averaging_patience
        self.plateau: Plateau | None = None
        self.step = 0
        self.history: list[float] = []
        self._look = look
        self._best: dict[str, Tensor] = {}
        self._mean: dict[str, Tensor] = {}
        self._averaged = 0
        self._fresh: tuple[int, float] | None = None

    @property
    def averaging(self) -> bool:
        """Whether the mean of the weights is what is looked at by now."""
        return bool(self._mean)

    def next(self) -> list[Batch]:
        """What a look at the weights of the step before decides, then the next batches."""
        if self.step:
            self._average()
            if self.step % self.every == 0:
                self._decide()
        self.step += 1
        return self.batches.next()

    def halves(self, batch: Batch) -> list[Batch]:
        """A micro-batch as two, as the batches within say it; alone where they do not."""
        return self.batches.halves(batch) if isinstance(self.batches, Divisible) else [batch]

    def restart(self) -> None:
        """The step is done once more."""
        if isinstance(self.batches, Restartable):
            self.batches.restart()

    def look(self, step: int) -> float:
        """The validation loss after `step` steps; kept until `next` decides on it."""
        with _Swapped(self.network, self._mean):
            self._fresh = (step, self._look())
        return self._fresh[1]

    def finish(self) -> None:
        """Decide on the last look and leave the network with the best weights."""
        self._average()
        self._decide()
        _put(self.network, self._best)

    def state_dict(self) -> dict[str, Any]:
        return {
            "batches": self.batches.state_dict(),
            "step": self.step,
            "history": self.history,
            "best": dict(self._best),
            "mean": dict(self._mean),
            "averaged": self._averaged,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches.load_state_dict(state["batches"])
        self.step, self.history, self._averaged = state["step"], list(state["history"]), state["averaged"]
        device = next(self.network.parameters()).device
        self._best = {name: tensor.to(device) for name, tensor in state["best"].items()}
        self._mean = {name: tensor.to(device) for name, tensor in state["mean"].items()}
        self._fresh = None

    def _average(self) -> None:
        if self._mean:
            self._averaged += 1
            for name, weight in self.network.named_parameters():
                self._mean[name] += (weight.detach() - self._mean[name]) / self._averaged

    def _decide(self) -> None:
        found = (
            self._fresh[1] if self._fresh and self._fresh[0] == self.step and not self._mean else self.look(self.step)
        )
        self._fresh = None
        if not self._best or found < min(self.history, default=math.inf):
            shown = self._mean or dict(self.network.named_parameters())
            self._best = {name: weight.detach().clone() for name, weight in shown.items()}
        if self.plateau is not None:
            self.plateau.look(found)
        patience = self.averaging_patience
        old = self.history[: len(self.history) - patience] if patience else []
        if patience and not self._mean and old and found > min(old):
            self._mean = {name: weight.detach().clone() for name, weight in self.network.named_parameters()}
            self._averaged = 1
        self.history.append(found)


class _Swapped:
    """The network with other weights while it is looked at; with none given, as it is."""

    def __init__(self, network: nn.Module, weights: dict[str, Tensor]) -> None:
        self.network, self.weights = network, weights
        self._own: dict[str, Tensor] = {}

    def __enter__(self) -> None:
        if self.weights:
            self._own = {name: weight.detach().clone() for name, weight in self.network.named_parameters()}
            _put(self.network, self.weights)

    def __exit__(self, *_: object) -> None:
        if self._own:
            _put(self.network, self._own)


@torch.no_grad()
def _put(network: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, weight in network.named_parameters():
        weight.copy_(weights[name])


def evaluation(watched: WatchedBatches) -> Callable[[int], dict[str, float]]:
    """For the Trainer: the look that it writes into metrics.jsonl."""
    return lambda step: {"valid_perplexity": math.exp(min(watched.look(step), 700.0))}

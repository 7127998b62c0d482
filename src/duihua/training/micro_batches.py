"""Out of memory in the middle of a step: the step is done again in smaller micro-batches, and learns the same.

A loss is a sum and a weight, and the gradient is divided by the weight of the whole step, so that cutting a micro-batch in two
changes nothing but the order in which numbers are added: the effective batch, the learning rate and what is learnt stay. What
was added to the gradients before the memory ran out is thrown away, the random state is set back, and the source and the loss
forget what they told each other of the step. From then on every step is cut so; the number of cuts goes into the checkpoint,
so that a run that is resumed adds its numbers in the same order as one that was not.

A micro-batch that ran out at one example cannot be cut: then training stops with advice. So it does where several ranks train
together, since a rank that begins a step anew would leave the others waiting in the middle of theirs.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from duihua import console
from duihua.errors import TrainingError
from duihua.training.ranks import Ranks

Batch: TypeAlias = dict[str, Tensor]

SAID = (
    *("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory"),
    *("cublas_status_alloc_failed", "cudnn_status_alloc_failed"),
)
"""What torch says on a CPU, where it has no error of its own for this (c10/core/impl/alloc_cpu.cpp), and what a GPU's libraries
say, which ask for memory beside torch's allocator."""


@runtime_checkable
class Shareable(Protocol):
    """A batch source whose steps can be spread over ranks."""

    def share(self, rank: int, ranks: int) -> list[Batch]:
        """Of each micro-batch of the next step the rows of one rank, an empty dict where it has none. Over all ranks
        every row of `next` comes once; the source has moved on by the whole step on each of them."""


@runtime_checkable
class Divisible(Protocol):
    """A batch source whose micro-batches can be cut."""

    def halves(self, batch: Batch) -> list[Batch]:
        """The micro-batch as two, or itself alone where it is one example."""


@runtime_checkable
class Restartable(Protocol):
    """A batch source that a loss tells something; without this method a step can be done again as it is."""

    def restart(self) -> None:
        """Forget what the loss has told since `next`."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU, in torch on a CPU, or in Python itself."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in SAID)


class MicroBatches:
    """A batch source whose micro-batches are cut in two `halvings` times over."""

    def __init__(self, source: Any, label: str = "", ranks: Ranks | None = None) -> None:
        """ranks: those that share a step's rows. Raises TrainingError for a source that cannot be shared."""
        self.source, self.label, self.ranks = source, label, ranks or Ranks()
        if self.ranks.count > 1 and not isinstance(source, Shareable):
            raise TrainingError(
                f"{type(source).__name__} cannot be spread over {self.ranks.count} ranks",
                where=label or "trainer",
                remedy="Train this on one rank",
            )
        self.halvings = 0

    def next(self) -> list[Batch]:
        """The next step's micro-batches, cut as often as the memory has asked for."""
        ranks = self.ranks
        batches: list[Batch] = self.source.next() if ranks.count == 1 else self.source.share(ranks.number, ranks.count)
        for _ in range(self.halvings):
            batches = self._halved(batches)
        return batches

    def smaller(self, batches: list[Batch], error: BaseException) -> list[Batch]:
        """The same step's micro-batches once more, each in two, and said in the log.

        Raises TrainingError where they cannot be cut any further, and where another rank waits for this one.
        """
        halved = self._halved(batches) if self.ranks.count == 1 else batches
        if len(halved) == len(batches):
            raise TrainingError(
                f"the memory does not hold a micro-batch of {_examples(batches)}: {_first_line(error)}",
                where=self.label or "trainer",
                remedy="Make the micro-batch, the rows or the model smaller, or set gradient_checkpointing; "
                "the last checkpoint is kept",
            ) from error
        self.halvings += 1
        if isinstance(self.source, Restartable):
            self.source.restart()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        console.warn(
            f"{self.label}: out of memory ({_first_line(error)}); the step is done again in {len(halved)} micro-batches "
            f"instead of {len(batches)}, and so are all that follow. The effective batch stays, and so does what is learnt."
        )
        return halved

    def _halved(self, batches: list[Batch]) -> list[Batch]:
        if not isinstance(self.source, Divisible):
            return batches
        return [half for batch in batches for half in (self.source.halves(batch) if batch else [batch, batch])]


def _examples(batches: list[Batch]) -> str:
    shapes = [tuple(batch["token_ids"].shape) for batch in batches if "token_ids" in batch]
    return f"{' x '.join(map(str, max(shapes)))} tokens" if shapes else "its size"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__

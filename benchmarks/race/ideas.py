"""Ideas that the product does not have, so that the race can say what they would be worth in equal time.

Why here and not as settings: a setting that gains nothing is a question for everybody who reads it. Each idea takes a
trainer, changes it, and gives what is to be done before each step, if anything is; `--set ideas=[normuon]` in
race_ablation.py tries it. What was found stands in docs/log.md.

normuon: each row of Muon's update divided by a running mean of its size, the whole keeping its norm (Li et al. 2025, NorMuon,
algorithm 1). cautious-decay: weights decay only where the update goes towards zero too (Chen et al. 2025, Cautious Weight
Decay, algorithm 1). batch-ramp: half the rows in the first third of the time, at rates divided by the root of two.
length-warm-up: the same rows cut into quarters, then halves, then whole (Li et al. 2022, Stability-Efficiency Dilemma).
in-order: rows as the stream has them. easy-first: the rows of the whole time sorted by how frequent their tokens are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from duihua.errors import ConfigError

if TYPE_CHECKING:  # the names are wanted where torch is not, which takes seconds to import
    from torch import Tensor

    from duihua.data.loaders import StreamedBatches
    from duihua.training.muon import Muon
    from duihua.training.trainer import Trainer

Hook = Callable[[], None]
DECAY = 0.1
"""In units of the learning rate, for cautious-decay."""
SETTLED = 6
"""Steps after which the number of steps that fit into the time is known."""


def part_done(trainer: Trainer) -> float:
    """The share of the steps that is done; near 0 before their number is known."""
    return trainer.step_number / trainer.steps


class ChangedMuon:
    """Muon with its change of each matrix changed: `changed(name, before, change, rate)` gives the new weights."""

    def __init__(self, muon: Muon, changed: Callable[[str, Tensor, Tensor, float], Tensor]) -> None:
        self.muon, self.changed = muon, changed

    def step(self, rate: float) -> None:
        before = {name: weight.detach().clone() for name, weight in self.muon.matrices.items()}
        self.muon.step(rate)
        for name, parameter in self.muon.matrices.items():
            weight = parameter.detach()
            weight.copy_(self.changed(name, before[name], weight - before[name], rate))

    def state_dict(self) -> dict[str, Tensor]:
        """Muon's alone: the race never resumes, and writes one checkpoint at its end."""
        return self.muon.state_dict()


def _with_muon(trainer: Trainer, changed: Callable[[str, Tensor, Tensor, float], Tensor]) -> None:
    assert trainer.optimizer.muon is not None
    trainer.optimizer.muon = cast("Muon", ChangedMuon(trainer.optimizer.muon, changed))


def normuon(trainer: Trainer) -> None:
    """Its second moment decays by 0.95 and starts without a bias."""
    sizes: dict[str, Tensor] = {}

    def changed(name: str, before: Tensor, change: Tensor, rate: float) -> Tensor:
        square = (change / max(rate, 1e-12)).square().mean(dim=1, keepdim=True)
        sizes[name] = sizes[name].lerp(square, 0.05) if name in sizes else square * 0.05
        scaled = change / ((sizes[name] / (1 - 0.95**trainer.step_number)).sqrt() + 1e-8)
        return before + scaled * (change.norm() / scaled.norm().clamp_min(1e-12))

    _with_muon(trainer, changed)


def cautious_decay(trainer: Trainer) -> None:
    def changed(_name: str, before: Tensor, change: Tensor, rate: float) -> Tensor:
        return before + change - rate * DECAY * before * (before * change < 0)

    _with_muon(trainer, changed)


def batch_ramp(trainer: Trainer) -> Hook:
    batches, step = _batches(trainer), trainer.optimizer.step
    whole = batches.rows

    def before_step() -> None:
        batches.rows = whole // 2 if part_done(trainer) < 1 / 3 else whole

    def scaled(factor: float) -> None:
        step(factor * (batches.rows / whole) ** 0.5)

    trainer.optimizer.step = scaled  # type: ignore[method-assign]
    return before_step


def length_warm_up(trainer: Trainer) -> None:
    batches = _batches(trainer)
    read = batches.share

    def cut(rank: int, ranks: int) -> list[dict[str, Tensor]]:
        done = part_done(trainer)
        length = batches.length // (4 if done < 0.25 else 2 if done < 0.5 else 1)
        return [{name: part.reshape(-1, length) for name, part in batch.items()} for batch in read(rank, ranks)]

    batches.share = cut  # type: ignore[method-assign]


def in_order(trainer: Trainer) -> None:
    batches = _batches(trainer)
    _read_in(batches, range(len(batches._order)))


def easy_first(trainer: Trainer) -> Hook:
    """A row is as easy as its tokens are frequent among the rows of the whole time."""
    batches = _batches(trainer)

    def before_step() -> None:
        if trainer.step_number != SETTLED:
            return
        order = [batches._order[place] for place in range(len(batches._order))]
        end = min(batches.row + (trainer.steps - SETTLED) * batches.rows, len(order))
        coming = order[batches.row : end]
        starts = [min(row * batches.length, batches.epoch_tokens - batches.length) for row in coming]
        ids = np.stack([batches._read_row(start) for start in starts])
        counts = np.bincount(ids.ravel())
        ease = np.log(counts[ids]).mean(axis=1)
        order[batches.row : end] = [coming[place] for place in np.argsort(-ease, kind="stable")]
        _read_in(batches, order)

    return before_step


def _batches(trainer: Trainer) -> StreamedBatches:
    return cast("StreamedBatches", trainer.batches)


def _read_in(batches: StreamedBatches, order: Sequence[int]) -> None:
    """Rows in this order: of the first epoch, which the race does not leave."""
    batches._order = cast(Any, order)


IDEAS: dict[str, Callable[[Trainer], Hook | None]] = {
    "normuon": normuon,
    "cautious-decay": cautious_decay,
    "batch-ramp": batch_ramp,
    "length-warm-up": length_warm_up,
    "in-order": in_order,
    "easy-first": easy_first,
}


def hooks_of(names: Sequence[str], trainer: Trainer) -> list[Hook]:
    """Change a trainer by these ideas; what is to be done before each step. ConfigError for an unknown one."""
    unknown = sorted(set(names) - set(IDEAS))
    if unknown:
        raise ConfigError(f"no such idea: {unknown[0]}", where="ideas", remedy=f"Choose among {', '.join(IDEAS)}")
    return [hook for hook in [IDEAS[name](trainer) for name in names] if hook is not None]

"""Minibatches of preference pairs: every pair once an epoch, in an order that is a hash of seed and epoch.

Why the two sides share a batch: the loss is of their difference, and read together they meet the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from duihua.data.halves import halve_rows
from duihua.engine.randomness import sample_seed
from duihua.stages.encoded_pairs import Pair
from duihua.stages.scoring import pad_rows


class PairBatches:
    """A batch source of pairs: every epoch in a new order; the pairs of a step sorted by length into micro-batches.

    Rows 0..p-1 of a micro-batch are the chosen sides of its p pairs, rows p..2p-1 the rejected ones, right-padded.
    """

    def __init__(self, pairs: Sequence[Pair], batch: int, micro_batch: int, pad_id: int, seed: int) -> None:
        self.pairs, self.batch, self.micro_batch, self.pad_id, self.seed = pairs, batch, micro_batch, pad_id, seed
        self.step = 0

    @property
    def steps_per_epoch(self) -> int:
        """Steps that show every pair once; the last one may be smaller."""
        return -(-len(self.pairs) // self.batch)

    def next(self) -> list[dict[str, Tensor]]:
        """The micro-batches of one update."""
        return self.share(0, 1)

    def share(self, rank: int, ranks: int) -> list[dict[str, Tensor]]:
        """The pairs of one of several ranks, of each micro-batch those numbered rank, rank + ranks, ...; {} for none."""
        epoch, place = divmod(self.step, self.steps_per_epoch)
        generator = torch.Generator().manual_seed(sample_seed(self.seed, epoch, 0, 0))
        order = torch.randperm(len(self.pairs), generator=generator).tolist()
        chosen = sorted(
            order[place * self.batch : (place + 1) * self.batch],
            key=lambda i: (max(len(self.pairs[i].chosen), len(self.pairs[i].rejected)), i),
        )
        self.step += 1
        parts = [chosen[start : start + self.micro_batch] for start in range(0, len(chosen), self.micro_batch)]
        mine = [[self.pairs[i] for i in part[rank::ranks]] for part in parts]
        return [pair_batch(part, self.pad_id) if part else {} for part in mine]

    def halves(self, batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """A micro-batch as two, where the memory does not hold it: both sides of a pair stay together."""
        pairs = len(batch["lengths"]) // 2
        sides = [{name: tensor.reshape(2, pairs, *tensor.shape[1:]).transpose(0, 1) for name, tensor in batch.items()}]
        parts = [half for side in sides for half in halve_rows(side)]
        return [{name: tensor.transpose(0, 1).flatten(0, 1) for name, tensor in half.items()} for half in parts]

    def state_dict(self) -> dict[str, Any]:
        """The number of steps handed out; the order is a hash of seed and epoch."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = int(state["step"])


def pair_batch(pairs: Sequence[Pair], pad_id: int) -> dict[str, Tensor]:
    """{"token_ids": (2p, t), "lengths": (2p,)}: all chosen sides, then all rejected ones."""
    rows = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    token_ids, lengths = pad_rows(rows, pad_id)
    return {"token_ids": token_ids, "lengths": lengths}

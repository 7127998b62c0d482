"""Batches of sentence pairs by the number of tokens, pairs of like length together (Vaswani et al. 2017, section 5.1).

Why not so many pairs a batch: lengths differ tenfold, a batch is as wide as its longest row, and what is padded is paid for.
Why not simply sorted by length: batches of one length, one after the other, would pull the weights to and fro. So an epoch
draws all pairs in a random order, sorts a pool of some batches at a time by length, cuts the pool into batches of at most
`batch_tokens` tokens (source and target, padding included), and then shuffles the batches.

The order depends on the seed and the epoch alone, so the whole state is (epoch, batch).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from duihua.data.halves import halve_rows
from duihua.errors import DataError

POOL_BATCHES = 128
"""Batches' worth of pairs that are sorted together. Of Multi30k in batches of 4,096 tokens 7 % of all tokens are padding
then; with one batch's worth at a time 31 %, without sorting 50 %."""


@dataclass(frozen=True)
class EncodedPair:
    """source: ids of what is read, the end token included. target: ids of what is written, the end token included."""

    source: tuple[int, ...]
    target: tuple[int, ...]


class TokenBatches:
    """next() gives one step's micro-batches of int64 tensors, right-padded:

        source (b, s), source_mask (b, s) true for real tokens, target (b, t) beginning with the start token, next (b, t) the
        same one place on and ending with the end token, weights (b, t) fp32: 1 for real tokens of `next`, 0 for pads

    groups, repeats: pairs of each source, and how often an epoch reads them (1.5: once, and a random half once more).
    batch_tokens: most tokens of a micro-batch; a pair that is longer by itself has a batch of its own. Raises DataError for
    no pairs.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[EncodedPair]],
        repeats: Sequence[float],
        *,
        batch_tokens: int,
        micro_batches: int,
        start_id: int,
        pad_id: int,
        seed: int,
    ) -> None:
        self.pairs = [pair for group in groups for pair in group]
        self.seed, self.batch_tokens, self.micro_batches = seed, batch_tokens, micro_batches
        self.start_id, self.pad_id, self.repeats = start_id, pad_id, list(repeats)
        ends = np.cumsum([0, *(len(group) for group in groups)])
        self._numbers = [np.arange(start, end) for start, end in pairwise(ends)]
        self._sizes = np.array([[len(pair.source), len(pair.target)] for pair in self.pairs]).reshape(-1, 2)
        self.epoch, self.batch = 0, 0
        self._lay_out(0)

    @property
    def batches_an_epoch(self) -> int:
        """Micro-batches in the present epoch; another epoch may have one more or less."""
        return len(self._batches)

    @property
    def padding(self) -> float:
        """Share of the present epoch's tokens that are padding."""
        filled = sum(int(self._sizes[batch].sum()) for batch in self._batches)
        return 1 - filled / sum(self._tokens(batch) for batch in self._batches)

    def next(self) -> list[dict[str, Tensor]]:
        return [self._padded(self._next_batch()) for _ in range(self.micro_batches)]

    def halves(self, batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """A micro-batch as two, where the memory does not hold it."""
        return halve_rows(batch)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._lay_out(state["epoch"])
        self.batch = state["batch"]

    def _lay_out(self, epoch: int) -> None:
        """Draw the pairs of an epoch and cut them into batches."""
        random = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        drawn = []
        for numbers, repeat in zip(self._numbers, self.repeats, strict=True):
            whole, share = divmod(repeat, 1.0)
            drawn += [numbers] * int(whole) + [random.permutation(numbers)[: round(share * len(numbers))]]
        order = random.permutation(np.concatenate(drawn)) if drawn else np.zeros(0, dtype=np.int64)
        if not len(order):
            raise DataError(
                "there is no pair to learn from", where="translate.sources", remedy="Name a source with pairs"
            )
        pools = np.cumsum(self._sizes[order].sum(axis=1)) // (POOL_BATCHES * self.batch_tokens)
        batches: list[list[int]] = []
        for pool in range(int(pools[-1]) + 1):
            members = order[pools == pool]
            sizes = self._sizes[members]
            batches += self._cut(members[np.lexsort((sizes.sum(axis=1), sizes.max(axis=1)))])
        self._batches = [batches[place] for place in random.permutation(len(batches))]
        self.epoch, self.batch = epoch, 0

    def _cut(self, members: Any) -> list[list[int]]:
        """Neighbours in one batch as long as it holds at most `batch_tokens` tokens, padding included."""
        batches: list[list[int]] = []
        longest = [0, 0]
        for number in map(int, members):
            source, target = map(int, self._sizes[number])
            grown = [max(longest[0], source), max(longest[1], target)]
            if batches and (len(batches[-1]) + 1) * sum(grown) <= self.batch_tokens:
                batches[-1].append(number)
                longest = grown
            else:
                batches.append([number])
                longest = [source, target]
        return batches

    def _next_batch(self) -> list[int]:
        if self.batch >= len(self._batches):
            self._lay_out(self.epoch + 1)
        self.batch += 1
        return self._batches[self.batch - 1]

    def _tokens(self, batch: list[int]) -> int:
        return len(batch) * int(self._sizes[batch].max(axis=0).sum())

    def _padded(self, batch: list[int]) -> dict[str, Tensor]:
        return padded_batch([self.pairs[number] for number in batch], self.start_id, self.pad_id)


def padded_batch(pairs: Sequence[EncodedPair], start_id: int, pad_id: int) -> dict[str, Tensor]:
    """The tensors of a batch, as `TokenBatches` says."""
    source = _rows([pair.source for pair in pairs], pad_id)
    following = _rows([pair.target for pair in pairs], pad_id)
    lengths = torch.tensor([[len(pair.source), len(pair.target)] for pair in pairs])
    target = following.roll(1, dims=1)
    target[:, 0] = start_id
    real = torch.arange(following.shape[1]) < lengths[:, 1:]
    target = torch.where(torch.arange(following.shape[1]) < lengths[:, 1:], target, pad_id)
    return {
        "source": source,
        "source_mask": torch.arange(source.shape[1]) < lengths[:, :1],
        "target": target,
        "next": following,
        "weights": real.float(),
    }


def _rows(rows: Sequence[Sequence[int]], pad_id: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in rows], dtype=torch.long)

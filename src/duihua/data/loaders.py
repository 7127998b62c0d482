"""Batches for pre-training: a stream of documents cut into rows of equal length.

Nothing is padded or thrown away: documents are shuffled anew each epoch, laid end to end (each begins with the
end-of-text token that closed the one before) and cut every `length` tokens; what a row cuts off goes on in the next row.
A source that counts more (or less) than once an epoch has its documents repeated (or thinned) in that epoch's order.
The order depends on the seed and the epoch alone; the state is (epoch, document, offset).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from duihua.data.shards import Shard
from duihua.errors import DataError


class StreamedBatches:
    """next() gives one step's micro-batches: {"token_ids": (b, t), "targets": (b, t)}, int64.

    The stream is filled row by row: a batch of b rows takes b * t consecutive tokens plus one.
    """

    def __init__(
        self,
        shards: list[Shard],
        repeats: list[float],
        rows: int,
        length: int,
        micro_batches: int,
        seed: int,
        end_id: int,
    ) -> None:
        self.shards, self.rows, self.length, self.micro_batches = shards, rows, length, micro_batches
        self.repeats, self.seed, self.end_id = repeats, seed, end_id
        self.epoch_tokens = sum(shard.tokens * repeat for shard, repeat in zip(shards, repeats, strict=True))
        if self.epoch_tokens < length + 1:
            raise DataError(
                f"the corpus has fewer than {length + 1} tokens",
                where="pretrain",
                remedy="Add text or shorten the rows",
            )
        self.epoch, self.document, self.offset = 0, 0, 0
        self._last = end_id
        self._order = self._shuffle(0)

    def next(self) -> list[dict[str, Tensor]]:
        batches = []
        for _ in range(self.micro_batches):
            ids = self._take(self.rows * self.length)
            stream = torch.from_numpy(ids.astype(np.int64))
            before = torch.cat((torch.tensor([self._last]), stream[:-1]))
            self._last = int(stream[-1])
            shape = (self.rows, self.length)
            batches.append({"token_ids": before.view(shape), "targets": stream.view(shape)})
        return batches

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "document": self.document, "offset": self.offset, "last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.document, self.offset = state["epoch"], state["document"], state["offset"]
        self._last = state["last"]
        self._order = self._shuffle(self.epoch)

    def _shuffle(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(documents of this epoch, 2): shard and document, shuffled."""
        random = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        parts = []
        for number, (shard, repeat) in enumerate(zip(self.shards, self.repeats, strict=True)):
            whole, rest = divmod(repeat * shard.documents, shard.documents)
            chosen = [np.arange(shard.documents)] * int(whole) + [random.permutation(shard.documents)[: round(rest)]]
            documents = np.concatenate(chosen)
            parts.append(np.stack((np.full(len(documents), number), documents), axis=1))
        order = np.concatenate(parts)
        return order[random.permutation(len(order))]

    def _take(self, count: int) -> np.ndarray[Any, np.dtype[Any]]:
        parts, missing = [], count
        while missing:
            if self.document == len(self._order):
                self.epoch, self.document, self.offset = self.epoch + 1, 0, 0
                self._order = self._shuffle(self.epoch)
            shard, document = self._order[self.document]
            ids = self.shards[shard].document(int(document))
            part = ids[self.offset : self.offset + missing]
            parts.append(part)
            missing -= len(part)
            self.offset += len(part)
            if self.offset == len(ids):
                self.document, self.offset = self.document + 1, 0
        return np.concatenate(parts)

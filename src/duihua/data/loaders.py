"""Batches for pre-training: rows of equal length out of one long stream of documents.

An epoch lays all documents end to end in a shuffled order (each is opened by the end-of-text token that closed the one
before), cuts the stream every `length` tokens, and reads the rows in another shuffled order. Nothing is padded or thrown
away. Why the second shuffle: consecutive rows come from the same long document, and a batch of them tells the gradient
little; rows from everywhere learn faster at the same cost (docs/log.md has the figures).

A source that counts more (or less) than once an epoch has its documents repeated (or thinned) in that epoch's order.
The order depends on the seed and the epoch alone, so the whole state is (epoch, row).

A row may hold the end of one document and the beginning of another. Where documents are to be masked, each row says which
token belongs to which of them; that follows from the ids of the row alone, so the state is the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from duihua.data.halves import halve_rows
from duihua.data.shards import Shard
from duihua.data.shuffled_range import ShuffledRange
from duihua.errors import DataError


class StreamedBatches:
    """next() gives one step's micro-batches: {"token_ids": (b, t), "targets": (b, t)}, int64, targets one place on.

    repeats: how often an epoch reads each shard. rows, length: shape of a micro-batch. end_id: the end-of-text token.
    mask_documents: "segments" and "positions" of `documents_in`, both (b, t), stand in each micro-batch too.
    Raises DataError when an epoch has fewer tokens than one row.
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
        mask_documents: bool = False,
    ) -> None:
        self.shards, self.repeats, self.seed, self.end_id = shards, repeats, seed, end_id
        self.rows, self.length, self.micro_batches = rows, length, micro_batches
        self.mask_documents = mask_documents
        self._lengths = [np.diff(shard.ends, prepend=0).astype(np.int32) for shard in shards]
        self.epoch, self.row = 0, 0
        self._lay_out(0)

    @property
    def epoch_tokens(self) -> int:
        """Tokens in the present epoch."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def next(self) -> list[dict[str, Tensor]]:
        return self.share(0, 1)

    def share(self, rank: int, ranks: int) -> list[dict[str, Tensor]]:
        """The rows of one of several ranks, of each micro-batch those numbered rank, rank + ranks, ...; {} for none.

        No other row is read, and the source moves on by the whole step."""
        batches: list[dict[str, Tensor]] = []
        for _ in range(self.micro_batches):
            found = []
            for place in range(self.rows):
                start = self._next_start()
                if place % ranks == rank:
                    found.append(self._read_row(start))
            batches.append(self._micro_batch(np.stack(found)) if found else {})
        return batches

    def halves(self, batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """A micro-batch as two, where the memory does not hold it."""
        return halve_rows(batch)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "row": self.row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._lay_out(state["epoch"])
        self.row = state["row"]

    def _micro_batch(self, rows: npt.NDArray[np.int64]) -> dict[str, Tensor]:
        """What is trained on, of rows with the token before them."""
        ids = torch.from_numpy(rows)
        batch = {"token_ids": ids[:, :-1], "targets": ids[:, 1:]}
        if self.mask_documents:
            batch["segments"], batch["positions"] = documents_in(batch["token_ids"], self.end_id)
        return batch

    def _lay_out(self, epoch: int) -> None:
        """Order the documents and the rows of an epoch."""
        random = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        numbers, places, sizes = [], [], []
        for number, (lengths, repeat) in enumerate(zip(self._lengths, self.repeats, strict=True)):
            whole, share = divmod(repeat, 1.0)
            few = round(share * len(lengths))
            thinned = [random.permutation(len(lengths))[:few]] if few else []
            documents = np.concatenate([*[np.arange(len(lengths))] * int(whole), *thinned, np.arange(0)])
            numbers.append(np.full(len(documents), number, dtype=np.int16))  # small types: a large corpus has millions
            places.append(documents.astype(np.int32))
            sizes.append(lengths[documents])
        order = random.permutation(sum(len(part) for part in places))
        self._shard_of = np.concatenate(numbers)[order]
        self._documents = np.concatenate(places)[order]
        self._ends: npt.NDArray[np.int64] = np.cumsum(np.concatenate(sizes)[order], dtype=np.int64)
        if self.epoch_tokens < self.length:
            raise DataError(
                f"the corpus has {self.epoch_tokens} tokens, fewer than one row of {self.length}",
                where="pretrain",
                remedy="Add text or shorten the rows",
            )
        self._order = ShuffledRange(-(-self.epoch_tokens // self.length), self.seed, epoch)
        self.epoch, self.row = epoch, 0

    def _next_start(self) -> int:
        """Where the next row starts in the stream of its epoch."""
        if self.row >= len(self._order):
            self._lay_out(self.epoch + 1)
        self.row += 1
        # The last row reaches back, so that no token is left out.
        return min(self._order[self.row - 1] * self.length, self.epoch_tokens - self.length)

    def _read_row(self, start: int) -> npt.NDArray[np.int64]:
        """length + 1 ids: a row's tokens and the one before them, of the present epoch."""
        if start:
            return self._read(start - 1, self.length + 1)
        return np.concatenate((np.asarray([self.end_id], dtype=np.int64), self._read(0, self.length)))

    def _read(self, start: int, count: int) -> npt.NDArray[np.int64]:
        """`count` ids of the epoch's stream from place `start` on."""
        place = int(np.searchsorted(self._ends, start, side="right"))
        offset = start - (int(self._ends[place - 1]) if place else 0)
        parts: list[npt.NDArray[np.unsignedinteger]] = []
        while count:
            part = self.shards[self._shard_of[place]].part(int(self._documents[place]), offset, count)
            parts.append(part)
            count -= len(part)
            place, offset = place + 1, 0
        return np.concatenate(parts).astype(np.int64)


def documents_in(token_ids_bt: Tensor, end_id: int) -> tuple[Tensor, Tensor]:
    """Of each token the number of its document in its row, and its place there; both (b, t), int64.

    A document begins at the end-of-text token that opens it; one that goes on from the row before has number 0 and begins
    at the row's start, since what stood before is not there to be looked at. Places are counted anew in each document, as
    packed conversations have them (data/packing.py): with learned or sinusoidal positions only that makes a document what it
    is alone, and rotary ones are relative, so that they do not mind.
    """
    opens = token_ids_bt == end_id
    order = torch.arange(token_ids_bt.shape[1], device=token_ids_bt.device)
    begins = torch.where(opens, order, 0).cummax(dim=1).values
    return opens.cumsum(dim=1), order - begins

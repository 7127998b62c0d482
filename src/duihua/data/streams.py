"""Batches for truncated back-propagation through time: rows that each go on where they stopped.

A recurrent network must read text in order, so the corpus is one stream, cut into `rows` pieces that are read side by side;
a step takes the next `length` tokens of each and hands the state on (Mikolov et al. 2010; Williams and Peng 1990). The
gradient ends at the beginning of the window, the memory does not.

In every epoch the stream is turned by another number of tokens (its end is followed by its beginning), so that the windows
fall elsewhere: what is at the edge of a window once, where no gradient reaches back, is inside it the next time. The order
depends on the seed and the epoch alone. The state belongs to the place in the stream, so it is stored with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from duihua.data.halves import halve_rows
from duihua.errors import DataError

STATE = "state."
"""What the names of the state's tensors in a batch begin with."""


class ContiguousBatches:
    """next() gives one micro-batch {"token_ids": (b, t), "targets": (b, t)}, int64, with what `carry` was given last.

    ids: the whole corpus, one document after the other. Raises DataError for a corpus with fewer tokens than rows.
    """

    def __init__(self, ids: npt.NDArray[np.int64], rows: int, length: int, seed: int) -> None:
        if len(ids) < 2 * rows:
            raise DataError(
                f"{len(ids)} tokens are too few for {rows} rows",
                where="recurrent",
                remedy="Add text or read fewer rows",
            )
        self.ids, self.rows, self.length, self.seed = ids, rows, length, seed
        self.epoch, self.place = 0, 0
        self._state: dict[str, Tensor] = {}
        self._lay_out()

    @property
    def row_tokens(self) -> int:
        """Tokens of each row in an epoch; what is left over (less than one for each row) is another part each time."""
        return len(self.ids) // self.rows

    @property
    def steps_an_epoch(self) -> int:
        return -(-self.row_tokens // self.length)

    def next(self) -> list[dict[str, Tensor]]:
        """The next window of each row. An epoch begins without a state."""
        if self.place >= self.row_tokens:
            self.epoch, self.place, self._state = self.epoch + 1, 0, {}
            self._lay_out()
        end = min(self.place + self.length, self.row_tokens)
        window = torch.from_numpy(self._read[:, self.place : end + 1])
        self.place = end
        batch = {"token_ids": window[:, :-1], "targets": window[:, 1:], **self._state}
        self._state = {}
        return [batch]

    def halves(self, batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """A window as two, each with some of the rows and their states, where the memory does not hold it."""
        return halve_rows(batch)

    def restart(self) -> None:
        """The window is read once more: the states that were carried out of it are forgotten."""
        self._state = {}

    def carry(self, state: Mapping[str, Tensor]) -> None:
        """What the next window begins with: tensors by name, rows first, without a graph. Called once for each micro-batch of
        the window, in order."""
        for name, tensor in state.items():
            # a memory that is no number would make every window after it one that is skipped
            finite = tensor.detach().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
            before = self._state.get(f"{STATE}{name}")
            self._state[f"{STATE}{name}"] = finite if before is None else torch.cat([before, finite])

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "place": self.place, "state": dict(self._state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.place = state["epoch"], state["place"]
        self._state = dict(state["state"])
        self._lay_out()

    def _lay_out(self) -> None:
        """The rows of an epoch, each with the token behind it: (rows, row_tokens + 1)."""
        random = np.random.Generator(np.random.PCG64([self.seed, self.epoch]))
        turned = np.roll(self.ids, -int(random.integers(len(self.ids))))
        used = self.rows * self.row_tokens
        following = np.append(turned, turned[0])
        self._read: npt.NDArray[np.int64] = np.concatenate(
            (turned[:used].reshape(self.rows, -1), following[self.row_tokens : used + 1 : self.row_tokens, None]),
            axis=1,
        )

"""The key-value cache: one slot a sequence, left-aligned, so that generation computes each token once.

Why slots and not left padding: every sequence starts at index 0 of its own slot and writes at its own positions, so
sequences of different lengths share one forward without pads. Whatever stands in a slot above a query's position (pads of
a prefill, an earlier sequence) is masked, because a query at position p sees keys 0..p only. A slot is therefore reused
without being cleared.
"""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Keys and values of all layers: two tensors (layers, slots, key-value heads, capacity, head width)."""

    def __init__(
        self,
        layers: int,
        slots: int,
        key_value_heads: int,
        capacity: int,
        head_width: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (layers, slots, key_value_heads, capacity, head_width)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def slots(self) -> int:
        return self.keys.shape[1]

    @property
    def capacity(self) -> int:
        """Tokens that one slot can hold."""
        return self.keys.shape[3]

    def write(
        self, layer: int, rows_b: Tensor | None, positions_bt: Tensor, keys_bgte: Tensor, values_bgte: Tensor, span: int
    ) -> tuple[Tensor, Tensor]:
        """Store new keys and values, give back the first `span` of each row: two tensors (b, g, span, e).

        rows_b: the slot of each batch row; None means slots 0..b-1 in order, which saves a copy. positions_bt: where each
        token goes. span: one more than the highest position in the batch.
        """
        keys, values = self.keys[layer], self.values[layer]
        batch, time = positions_bt.shape
        if rows_b is None:
            rows_b1 = torch.arange(batch, device=keys.device)[:, None]
        else:
            rows_b1 = rows_b[:, None]
        rows_bt = rows_b1.expand(batch, time)
        # Indexing the slot and capacity axes around the head axis puts (b, t) first: values are given as (b, t, g, e).
        keys[rows_bt, :, positions_bt] = keys_bgte.transpose(1, 2).to(keys.dtype)
        values[rows_bt, :, positions_bt] = values_bgte.transpose(1, 2).to(values.dtype)
        if rows_b is None:
            return keys[:batch, :, :span], values[:batch, :, :span]
        return keys[rows_b, :, :span], values[rows_b, :, :span]

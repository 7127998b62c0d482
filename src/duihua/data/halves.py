"""A micro-batch in two: what training does when the memory does not hold one (training/micro_batches.py).

Why each batch source says itself how its batches are cut, and nothing is cut by guess: the rows of a preference batch are all
better sides and then all worse ones, an example with options is several rows, and a number for the whole step belongs to
both halves. A source with a `halves` method can be cut; one without cannot, and says so by not having it.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor


def halve_rows(batch: dict[str, Tensor], whole: Collection[str] = ()) -> list[dict[str, Tensor]]:
    """The first half of every tensor's rows, and the rest; the batch alone where it has one row.

    whole: names of what belongs to all rows together and goes into both halves. Every other tensor has the same number of
    rows, or this is a fault of ours.
    """
    sizes = {len(tensor) for name, tensor in batch.items() if name not in whole}
    assert len(sizes) == 1, f"rows of different numbers: { {name: tuple(t.shape) for name, t in batch.items()} }"
    rows = sizes.pop()
    if rows < 2:
        return [batch]
    cuts = (slice(0, (rows + 1) // 2), slice((rows + 1) // 2, rows))
    return [{name: tensor if name in whole else tensor[cut] for name, tensor in batch.items()} for cut in cuts]

"""The numbers 0..n-1 in a shuffled order that is computed place by place and never written down.

Why: the rows of ten gigabytes of text are thirteen million; drawing a permutation of them takes a second and a half and a
hundred megabytes before the first step, and most of it is never read. A permutation that is a function costs neither.

It is a Feistel network (Luby and Rackoff 1988: four rounds with random round functions cannot be told from a random
permutation) over the smallest even number of bits that holds n; what falls outside n is sent round again, which keeps it a
permutation (Black and Rogaway 2002, "cycle walking").
"""

from __future__ import annotations

import numpy as np

ROUNDS = 6
"""More than four, since small ranges leave a round function few bits."""
_WORD = (1 << 64) - 1


class ShuffledRange:
    """shuffled[i] for i in 0..count-1: each number of the range once, in an order that follows from `seeds` alone."""

    def __init__(self, count: int, *seeds: int) -> None:
        self.count = count
        self._half = max(1, ((count - 1).bit_length() + 1) // 2)
        self._mask = (1 << self._half) - 1
        self._keys = [int(key) for key in np.random.SeedSequence(seeds).generate_state(ROUNDS, np.uint64)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> int:
        """Raises IndexError outside the range."""
        if not 0 <= place < self.count:
            raise IndexError(f"{place} is not in 0..{self.count - 1}")
        found = self._permuted(place)
        while found >= self.count:
            found = self._permuted(found)
        return found

    def _permuted(self, number: int) -> int:
        """One pass of the network over 2 x half bits."""
        left, right = number >> self._half, number & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right, key) & self._mask)
        return left << self._half | right


def _mixed(number: int, key: int) -> int:
    """64 bits that look random, of a number and a key: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    mixed = (number * 0x9E3779B97F4A7C15 + key) & _WORD
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _WORD
    return mixed ^ (mixed >> 31)

"""The merges of byte-pair encoding from counted pieces (Gage 1994; Sennrich et al. 2016, algorithm 1), in array operations.

Why beside a library that learns merges too: on the race's 10 MB that one takes twice as long (benchmarks/tokenizer.py), most
of it to keep sets of places for hundreds of thousands of pairs of which some thousands are ever merged. Here

- all symbols lie in one array, with links to the symbol before and behind, so that a merge is a handful of operations on the
  places of its pair;
- a pair with a new symbol arises only in the merge that makes the symbol: elsewhere counts can only fall, so the heap holds
  upper bounds, and a pair is counted again only when it comes to the top;
- rare pairs stay in their arrays, outside the heap, until the best of the heap is as rare as they are.

The merges are the same as those of `tokenizers`, ties included: of equally frequent pairs the one of lower ids is first, and a
run like aaa is merged from the left. Each merge makes a string that is new: what was merged never crosses the edges of an
occurrence of two neighbours, so an older token of the same bytes would have been made there before.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_GONE = -2
"""A place whose symbol was merged into the one before it."""
_WALL = -1
"""The symbol of the one place behind the last, which all links that leave a piece lead to."""
_STEP_DOWN = 3
"""Pairs enter the heap when the most frequent outside has become the best; then all that are at least a third as frequent."""


@dataclass(frozen=True)
class _Pairs:
    """Pairs with the places of their left members, outside the heap. Arrays of one length but `places`."""

    keys: Array
    counts: Array
    begins: Array
    ends: Array
    places: Array

    def where(self, chosen: Array) -> _Pairs:
        """The chosen ones."""
        return _Pairs(self.keys[chosen], self.counts[chosen], self.begins[chosen], self.ends[chosen], self.places)


class _Merging:
    """The symbols of all pieces, and the pairs that may be merged."""

    def __init__(self, pieces: Mapping[bytes, int], ids: Array, base: int, least: int) -> None:
        lengths = np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces))
        often = np.fromiter(pieces.values(), dtype=np.int64, count=len(pieces))
        size, ends = int(lengths.sum()), np.cumsum(lengths)
        link = np.int32 if size < 2**31 - 1 else np.int64  # half the memory to walk through
        self.wall, self.base, self.least = size, base, least
        self.symbols = np.append(ids[np.frombuffer(b"".join(pieces), dtype=np.uint8)], _WALL).astype(np.int32)
        self.next = np.arange(1, size + 2, dtype=link)
        self.before = np.arange(-1, size, dtype=link)
        self.next[ends - 1] = self.before[ends - lengths] = size
        self.next[size] = self.before[size] = size
        self.weights = np.append(np.repeat(often, lengths), 0)
        self.heap: list[tuple[int, int]] = []
        self.places: dict[int, Array] = {}
        self.rare: list[_Pairs] = []
        self.floor = np.iinfo(np.int64).max
        left = np.flatnonzero(self.next[:size] != size).astype(link)
        self._add(self._keys(self.symbols[left], self.symbols[self.next[left]]), left)

    def _keys(self, left: Array | int, right: Array | int) -> Array:
        made: Array = np.multiply(left, self.base, dtype=np.int64) + np.asarray(right, dtype=np.int64)
        return made

    def _add(self, keys: Array, places: Array) -> None:
        """New pairs by the places of their left members, in any order."""
        if not len(keys):
            return
        order = np.argsort(keys, kind="stable")
        keys, places = keys[order], places[order]
        begins = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        counts = np.add.reduceat(self.weights[places], begins)
        pairs = _Pairs(keys[begins], counts, begins, np.append(begins[1:], len(keys)), places)
        self._keep(pairs.where(counts >= self.least))

    def _keep(self, pairs: _Pairs) -> None:
        """Into the heap what is not below its floor, the rest aside."""
        frequent = pairs.counts >= self.floor
        hot = pairs.where(frequent)
        columns = (hot.keys, hot.counts, hot.begins, hot.ends)
        for key, count, begin, end in zip(*(column.tolist() for column in columns), strict=True):
            heapq.heappush(self.heap, (-count, key))
            self.places[key] = pairs.places[begin:end]
        if not frequent.all():
            self.rare.append(pairs.where(~frequent))

    def _lower_the_floor(self) -> None:
        most = max(int(pairs.counts.max()) for pairs in self.rare)
        self.floor = max(self.least, most // _STEP_DOWN)
        aside, self.rare = self.rare, []
        for pairs in aside:
            self._keep(pairs)

    def best(self) -> tuple[int, int, Array] | None:
        """The most frequent pair and its places, removed; None where every pair is rarer than `least`."""
        while True:
            while self.rare and (not self.heap or -self.heap[0][0] < self.floor):
                self._lower_the_floor()
            if not self.heap:
                return None
            bound, key = heapq.heappop(self.heap)
            left, right = divmod(key, self.base)
            places = self.places.pop(key)
            still = (self.symbols[places] == left) & (self.symbols[self.next[places]] == right)
            if still.all():
                return left, right, places
            places = places[still]
            count = int(self.weights[places].sum())
            if count == -bound:
                return left, right, places
            if count >= self.least:
                heapq.heappush(self.heap, (-count, key))
                self.places[key] = places

    def merge(self, left: int, right: int, places: Array, made: int) -> None:
        """Write `made` at the places of the pair and add the pairs that it has with its neighbours."""
        if left == right:
            places = self._not_overlapping(places)
        removed = self.next[places]
        behind = self.next[removed]
        self.symbols[places] = made
        self.symbols[removed] = _GONE
        self.next[places] = behind
        self.before[behind] = places
        self.before[self.wall] = self.wall
        before = self.before[places]
        to_left, to_right = self.symbols[before], self.symbols[behind]
        has_left = (to_left >= 0) & (to_left != made)  # two new ones side by side: counted from the first
        has_right = to_right >= 0
        keys = (self._keys(to_left[has_left], made), self._keys(made, to_right[has_right]))
        self._add(np.concatenate(keys), np.concatenate((before[has_left], places[has_right])))

    def _not_overlapping(self, places: Array) -> Array:
        """Of a run of equal symbols every second place, from the left. A piece's symbols lie in order."""
        kept, taken = [], -1
        ordered = np.sort(places)
        for place, following in zip(ordered.tolist(), self.next[ordered].tolist(), strict=True):
            if place != taken:
                kept.append(place)
                taken = following
        return np.array(kept, dtype=places.dtype)


def learn_merges(pieces: Mapping[bytes, int], ids: Array, size: int, least: int = 2) -> list[tuple[int, int]]:
    """The pairs of ids to merge, in order; the nth makes the id `max(ids) + 1 + n`.

    `pieces`: how often each piece of the text occurs; nothing is merged over their edges, and none is empty. `ids`: the id of
    each of the 256 bytes. Ends at `size` ids below which all are taken, or where no pair occurs `least` times.
    """
    if not pieces:
        return []
    merging = _Merging(pieces, ids, size, least)
    merges: list[tuple[int, int]] = []
    for made in range(int(ids.max()) + 1, size):
        if (found := merging.best()) is None:
            break
        left, right, places = found
        merging.merge(left, right, places, made)
        merges.append((left, right))
    return merges

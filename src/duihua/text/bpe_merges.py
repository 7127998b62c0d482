"""The merges of byte-pair encoding from counted pieces (Gage 1994; Sennrich et al. 2016, algorithm 1), in array operations.

Why beside a library that learns merges too: on the race's 10 MB that one takes twice as long (benchmarks/tokenizer.py), most
of it to keep sets of places for hundreds of thousands of pairs of which some thousands are ever merged. Here

- a symbol's id stands at its first and at its last byte, so that its neighbours are found beside it, and a merge is a handful
  of operations on the places of its pair; the pairs that come next are merged with it as long as they share no symbol;
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
"""At the first byte of a symbol that was merged into the one before it, unless it is the last byte too."""
_WALL = -1
"""Between two pieces."""
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
    """The symbols of all pieces, and the pairs that may be merged.

    symbols: of a symbol that fills bytes p to q its id stands at p and at q; a wall stands before, between and behind pieces.
    lengths: bytes of each id. weights: how often the piece of each byte occurs.
    """

    def __init__(self, pieces: Mapping[bytes, int], ids: Array, base: int, least: int) -> None:
        lengths = np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces))
        often = np.fromiter(pieces.values(), dtype=np.int64, count=len(pieces))
        text = np.frombuffer(b"\0" + b"\0".join(pieces) + b"\0", dtype=np.uint8)
        self.base, self.least = base, least
        self.symbols = ids.astype(np.int16 if base < 2**15 else np.int32)[text]
        self.symbols[0] = self.symbols[np.cumsum(lengths + 1)] = _WALL
        narrow = often.astype(_narrow(int(often.max())))
        self.weights = np.repeat(narrow, lengths + 1)  # a wall's is that of the piece behind
        self.lengths = np.ones(base, dtype=np.int32)
        self.heap: list[tuple[int, int]] = []
        self.places: dict[int, Array] = {}
        self.rare: list[_Pairs] = []
        self.floor = np.iinfo(np.int64).max
        inside = self.symbols != _WALL
        left = np.flatnonzero(inside[:-1] & inside[1:]).astype(_narrow(len(text)))
        both = text[left].astype(np.uint16) << 8 | text[left + 1]  # 16 bits are sorted by counting
        left = left[np.argsort(both, kind="stable")]
        self._group(self._keys(self.symbols[left], self.symbols[left + 1]), left)

    def _keys(self, left: Array, right: Array) -> Array:
        made: Array = np.multiply(left, self.base, dtype=np.int64) + right
        return made

    def _add(self, keys: Array, places: Array) -> None:
        """New pairs by the places of their left members, in any order."""
        if len(keys):
            order = np.argsort(keys)
            self._group(keys[order], places[order])

    def _group(self, keys: Array, places: Array) -> None:
        """New pairs, those of one key side by side."""
        if not len(keys):
            return
        begins = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        counts = np.add.reduceat(self.weights[places], begins, dtype=np.int64)
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

    def best(self, most: int) -> list[tuple[int, int, Array]]:
        """The most frequent pair and those behind it that can be merged at once, up to `most`, with their places; removed.

        None where every pair is rarer than `least`. The next pair may be merged with those before it unless an occurrence
        could share a symbol with one of theirs. It would then be the next one also if they were merged one by one: a pair
        (x, m) with a new symbol m = (a, b) is no more frequent than (x, a) was, which would have come first; and in a tie
        m's id is the higher. Where a = b this (x, a) may be the pair itself, which is therefore the last of those at once.
        """
        found: list[tuple[int, int, Array]] = []
        lefts: set[int] = set()
        rights: set[int] = set()
        while len(found) < most:
            while self.rare and (not self.heap or -self.heap[0][0] < self.floor):
                self._lower_the_floor()
            if not self.heap:
                break
            bound, key = self.heap[0]
            left, right = divmod(key, self.base)
            if left in rights or right in lefts:
                break
            places = self.places[key]
            still = (self.symbols[places] == left) & (self.symbols[places + self.lengths[left]] == right)
            if not still.all():
                places = places[still]
                count = int(self.weights[places].sum(dtype=np.int64))
                if count != -bound:
                    if count >= self.least:
                        heapq.heapreplace(self.heap, (-count, key))
                        self.places[key] = places
                    else:
                        heapq.heappop(self.heap)
                        del self.places[key]
                    continue
            heapq.heappop(self.heap)
            del self.places[key]
            lefts.add(left)
            rights.add(right)
            if left == right:  # a run like aaa makes pairs with the new symbol that may be the next ones
                found.append((left, right, self._not_overlapping(places, left)))
                break
            found.append((left, right, places))
        return found

    def merge(self, pairs: list[tuple[int, int, Array]], first: int) -> None:
        """Write the ids `first`, `first` + 1, ... at the places of the pairs and add the pairs that these have with their
        neighbours."""
        new = np.arange(first, first + len(pairs))
        lefts, rights = np.array([(left, right) for left, right, _ in pairs]).T
        self.lengths[new] = self.lengths[lefts] + self.lengths[rights]
        places, counts = np.concatenate([one for _, _, one in pairs]), [len(one) for _, _, one in pairs]
        made = np.repeat(new.astype(self.symbols.dtype), counts)
        self.symbols[places + np.repeat(self.lengths[lefts], counts)] = _GONE
        behind = places + self.lengths[made]
        self.symbols[places] = self.symbols[behind - 1] = made
        to_left, to_right = self.symbols[places - 1], self.symbols[behind]
        has_left = (to_left >= 0) & (to_left < first)  # two new ones side by side: counted from the first
        has_right = to_right >= 0
        before = places[has_left] - self.lengths[to_left[has_left]]
        keys = (self._keys(to_left[has_left], made[has_left]), self._keys(made[has_right], to_right[has_right]))
        self._add(np.concatenate(keys), np.concatenate((before, places[has_right])))

    def _not_overlapping(self, places: Array, symbol: int) -> Array:
        """Of a run of equal symbols every second place, from the left."""
        kept, taken = [], -1
        length = int(self.lengths[symbol])
        for place in np.sort(places).tolist():
            if place != taken:
                kept.append(place)
                taken = place + length
        return np.array(kept, dtype=places.dtype)


def _narrow(most: int) -> type[np.signedinteger[Any]]:
    """The type for numbers up to `most`: half the memory is half the way to it."""
    return np.int32 if most < 2**31 - 1 else np.int64


def learn_merges(pieces: Mapping[bytes, int], ids: Array, size: int, least: int = 2) -> list[tuple[int, int]]:
    """The pairs of ids to merge, in order; the nth makes the id `max(ids) + 1 + n`.

    `pieces`: how often each piece of the text occurs; nothing is merged over their edges, and none is empty. `ids`: the id of
    each of the 256 bytes. Ends at `size` ids below which all are taken, or where no pair occurs `least` times.
    """
    if not pieces:
        return []
    merging = _Merging(pieces, ids, size, least)
    merges: list[tuple[int, int]] = []
    made = int(ids.max()) + 1
    while made < size and (pairs := merging.best(size - made)):
        merging.merge(pairs, made)
        merges += [(left, right) for left, right, _ in pairs]
        made += len(pairs)
    return merges

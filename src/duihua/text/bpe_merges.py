"""The merges of byte-pair encoding from counted pieces (Gage 1994; Sennrich et al. 2016, algorithm 1), in array operations.

Why beside a library that learns merges too: on the race's 10 MB that one takes four times as long (benchmarks/tokenizer.py),
most of it to keep sets of places for hundreds of thousands of pairs of which some thousands are ever merged. Here

- a symbol's id stands at its first and at its last byte, so that its neighbours are found beside it, and the pair it makes with
  the next one at its first; a merge is a handful of operations on the places of its pair, and the pairs that come next are
  merged with it as long as they share no symbol;
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

_WALL = -1
"""The symbol between two pieces."""
_NO_PAIR = -1
"""The key where no symbol begins, or none follows in its piece."""
_BLOCK = 2**18
"""Bytes of text that are sorted at once in the beginning."""
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
    keys: at p the key of the pair that it makes with the next one. lengths: bytes of each id. weights: how often the piece of
    each byte occurs.
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
        self.keys = np.full(len(text), _NO_PAIR, dtype=_narrow(base**2))
        self._add_first(text, ids.astype(self.symbols.dtype))

    def _add_first(self, text: Array, ids: Array) -> None:
        """The pairs of neighbouring bytes, with their places in the order of the text. Block by block, so that what is
        needed in between stays small: fresh memory is what costs here."""
        found, sizes, counts = [], [], np.zeros(2**16)  # whole numbers below 2**53
        for begin in range(0, len(text) - 1, _BLOCK):
            block: Array = text[begin : begin + _BLOCK + 1]
            symbols = self.symbols[begin : begin + _BLOCK + 1]
            inside = symbols != _WALL
            left = np.flatnonzero(inside[:-1] & inside[1:])
            self.keys[begin + left] = self._keys(symbols[left], symbols[left + 1])
            both = block[left].astype(np.uint16) << 8 | block[left + 1]  # 16 bits are sorted by counting
            found.append(left[np.argsort(both, kind="stable")].astype(np.int32))
            sizes.append(np.bincount(both, minlength=2**16))
            counts += np.bincount(both, self.weights[begin + left], minlength=2**16)
        room = np.concatenate(([0], np.cumsum(np.sum(sizes, axis=0))))
        begins, ends = room[:-1].copy(), room[1:]
        places = np.empty(ends[-1], dtype=np.int64)
        for number, (some, size) in enumerate(zip(found, sizes, strict=True)):
            places[np.repeat(begins - (np.cumsum(size) - size), size) + np.arange(len(some))] = some + number * _BLOCK
            begins += size
        every = np.arange(2**16)
        pairs = _Pairs(self._keys(ids[every >> 8], ids[every & 255]), counts.astype(np.int64), room[:-1], ends, places)
        self._keep(pairs.where(counts >= max(self.least, 1)))

    def _keys(self, left: Array, right: Array) -> Array:
        made: Array = np.multiply(left, self.base, dtype=self.keys.dtype) + right
        return made

    def _add(self, keys: Array, places: Array) -> None:
        """New pairs by the places of their left members, in any order. Places of one pair in the order of the text are read
        faster ever after; where key and place fit one number, to sort these is the quickest way there."""
        if self.keys.dtype == np.int32 and len(self.keys) < 2**32:
            both = np.sort(keys.astype(np.int64) << 32 | places)
            self._group(both >> 32, both & 0xFFFFFFFF)
        else:
            order = np.lexsort((places, keys))
            self._group(keys[order], places[order])

    def _group(self, keys: Array, places: Array) -> None:
        """New pairs, those of one key side by side."""
        if not len(keys):
            return
        begins = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        counts = np.add.reduceat(self.weights[places].astype(np.int64), begins)
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
            still = self.keys[places] == key
            if np.count_nonzero(still) < len(still):
                count = -bound - int(np.add.reduce(self.weights[places[~still]], dtype=np.int64))
                if count >= self.least:
                    heapq.heapreplace(self.heap, (-count, key))
                    self.places[key] = places[still]
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
        self.keys[places + np.repeat(self.lengths[lefts], counts)] = _NO_PAIR
        behind = places + self.lengths[made]
        self.symbols[places] = self.symbols[behind - 1] = made
        to_left, to_right = self.symbols[places - 1], self.symbols[behind]
        has_left = (to_left >= 0) & (to_left < first)  # two new ones side by side: counted from the first
        has_right = to_right >= 0
        before = places[has_left] - self.lengths[to_left[has_left]]
        to_new = self._keys(to_left[has_left], made[has_left])
        of_new = self._keys(made, to_right)
        of_new[~has_right] = _NO_PAIR
        self.keys[before], self.keys[places] = to_new, of_new
        self._add(np.concatenate((to_new, of_new[has_right])), np.concatenate((before, places[has_right])))

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

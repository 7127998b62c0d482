"""The merges of byte-pair encoding from counted pieces (Gage 1994; Sennrich et al. 2016, algorithm 1), in array operations.

Why beside a library that learns merges too: on the race's 10 MB that one takes six times as long (benchmarks/tokenizer.py),
most of it to keep sets of places for hundreds of thousands of pairs of which some thousands are ever merged. Here

- where two symbols meet their ids stand side by side and are one number, the pair's key; to merge is to write the new id at
  both ends, a handful of operations on the places of the pair, and the pairs that come next are merged with it as long as
  they share no symbol;
- a pair with a new symbol arises only in the merge that makes the symbol: elsewhere counts can only fall, so the heap holds
  upper bounds, and a pair is counted again only when it comes to the top;
- rare pairs stay in their arrays, outside the heap, until the best of the heap is as rare as they are, and are then counted
  again all together;
- most pieces occur once; they stand behind the others, so that the numbers of the others are few and close at hand.

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
_NO_BYTE = "\udcff"
_WALL_BYTE = 255
"""What stands for a wall in the text, and in its bytes; UTF-8 has no such byte."""
_BLOCK = 2**18
"""Bytes of text that are sorted at once in the beginning."""
_STEP_DOWN = 3
"""Pairs enter the heap when the most frequent outside has become the best; then all that are at least a third as frequent."""
_AT_ONCE = 2**17
"""Places that are looked at again at once when pairs enter the heap, as many as a core keeps close."""


@dataclass(frozen=True)
class _Pairs:
    """Pairs with their places, outside the heap. Arrays of one length but `places`."""

    keys: Array
    counts: Array
    begins: Array
    ends: Array
    places: Array

    def where(self, chosen: Array) -> _Pairs:
        """The chosen ones."""
        return _Pairs(self.keys[chosen], self.counts[chosen], self.begins[chosen], self.ends[chosen], self.places)

    def alone(self, chosen: Array) -> _Pairs:
        """The chosen ones with their places alone, side by side."""
        begins, sizes = self.begins[chosen], self.ends[chosen] - self.begins[chosen]
        ends = np.cumsum(sizes)
        places = self.places[np.repeat(begins - (ends - sizes), sizes) + np.arange(ends[-1])]
        return _Pairs(self.keys[chosen], self.counts[chosen], ends - sizes, ends, places)


class _Merging:
    """The symbols of all pieces, and the pairs that may be merged.

    A place is the border between two symbols, told by the first byte of the right one; a wall stands before, between and behind
    pieces. pairs: at a place the key of its pair, left id and right id in one number, which lefts and rights see by half; where
    no symbol ends any more it is stale. lengths: bytes of each id. Pieces that occur once, most of them, stand behind the
    others; weights: how often the piece of each byte occurs, up to the first of those.
    """

    def __init__(self, pieces: Mapping[str, int], ids: Array, base: int, least: int) -> None:
        often = np.fromiter(pieces.values(), dtype=np.int64, count=len(pieces))
        order = np.argsort(often == 1, kind="stable")
        several = len(often) - np.count_nonzero(often == 1)
        every = list(pieces)
        ordered = [every[number] for number in order.tolist()]
        walled = f"{_NO_BYTE}{_NO_BYTE.join(ordered)}{_NO_BYTE}".encode("utf-8", "surrogateescape")
        text = np.frombuffer(walled, dtype=np.uint8)
        walls = np.flatnonzero(text == _WALL_BYTE)
        narrow = often[order[:several]].astype(np.int32 if often.max() < 2**31 else np.int64)
        self.weights = np.append(np.repeat(narrow, np.diff(walls[: several + 1])), narrow.dtype.type(1))
        self.least = least
        self.shift = 16 if base < 2**15 else 32
        self.pairs = np.empty(len(text), dtype=f"<i{self.shift // 4}")
        halves = self.pairs.view(f"<i{self.shift // 8}")
        self.rights, self.lefts = halves[0::2], halves[1::2]
        symbols = ids.astype(halves.dtype)[text]
        symbols[walls] = _WALL
        self.rights[:], self.lefts[0], self.lefts[1:] = symbols, _WALL, symbols[:-1]
        self.lengths = np.ones(base, dtype=np.int64)
        self.heap: list[tuple[int, int]] = []
        self.places: dict[int, Array] = {}
        self.rare: list[_Pairs] = []
        self.floor = np.iinfo(np.int64).max
        self._add_first(text, ids)

    def _add_first(self, text: Array, ids: Array) -> None:
        """The pairs of neighbouring bytes, with their places in the order of the text. Block by block, so that what is
        needed in between stays small: fresh memory is what costs here."""
        found, sizes, counts = [], [], np.zeros(2**16)  # whole numbers below 2**53
        for begin in range(1, len(text), _BLOCK):
            block: Array = text[begin - 1 : begin + _BLOCK]
            inside = block != _WALL_BYTE
            right = np.flatnonzero(inside[:-1] & inside[1:])
            both = (block[:-1].astype(np.uint16) << 8 | block[1:])[right]  # 16 bits are sorted by counting
            found.append(right[np.argsort(both, kind="stable")].astype(np.int32))
            sizes.append(np.bincount(both, minlength=2**16))
            counts += np.bincount(both, self._weights(begin + right), minlength=2**16)
        room = np.concatenate(([0], np.cumsum(np.sum(sizes, axis=0))))
        begins, ends = room[:-1].copy(), room[1:]
        places = np.empty(ends[-1], dtype=np.int64)
        for number, (some, size) in enumerate(zip(found, sizes, strict=True)):
            into = np.repeat(begins - (np.cumsum(size) - size), size) + np.arange(len(some))
            places[into] = some + (1 + number * _BLOCK)
            begins += size
        every = np.arange(2**16)
        keys = (ids[every >> 8] << self.shift | ids[every & 255]).astype(self.pairs.dtype)
        pairs = _Pairs(keys, counts.astype(np.int64), room[:-1], ends, places)
        self._keep(pairs.where(counts >= max(self.least, 1)))

    def _weights(self, places: Array) -> Array:
        """How often the piece at each place occurs."""
        found: Array = self.weights.take(places, mode="clip")
        return found

    def _add(self, keys: Array, places: Array) -> None:
        """New pairs by their places, in any order. Places of one pair in the order of the text are read
        faster ever after; where key and place fit one number, to sort these is the quickest way there."""
        if self.shift == 16 and len(self.pairs) < 2**32:
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
        self._keep(self._counted(keys[begins], begins, np.append(begins[1:], len(keys)), places))

    def _counted(self, keys: Array, begins: Array, ends: Array, places: Array) -> _Pairs:
        """Those of the pairs that occur often enough; their places stand one behind another, and none is without."""
        counts = np.add.reduceat(self._weights(places).astype(np.int64), begins)
        return _Pairs(keys, counts, begins, ends, places).where(counts >= self.least)

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
        """Some of the rare pairs come into the heap, counted again in portions."""
        most = max(int(pairs.counts.max()) for pairs in self.rare)
        self.floor = max(self.least, most // _STEP_DOWN)
        aside, self.rare = self.rare, []
        hot: list[_Pairs] = []
        room = 0
        for pairs in aside:
            frequent = pairs.counts >= self.floor
            some = np.flatnonzero(frequent)
            if len(some) < len(frequent):
                self.rare.append(pairs.where(~frequent))
            if not len(some):
                continue
            ends = np.cumsum(pairs.ends[some] - pairs.begins[some])
            for part in np.split(some, np.flatnonzero(np.diff(ends // _AT_ONCE)) + 1):
                hot.append(pairs.alone(part))
                room += len(hot[-1].places)
                if room >= _AT_ONCE:
                    self._keep(self._counted_again(hot))
                    hot, room = [], 0
        if hot:
            self._keep(self._counted_again(hot))

    def _counted_again(self, aside: list[_Pairs]) -> _Pairs:
        """What is left of pairs whose places stand side by side."""
        keys = np.concatenate([pairs.keys for pairs in aside])
        sizes = np.concatenate([pairs.ends - pairs.begins for pairs in aside])
        places = np.concatenate([pairs.places for pairs in aside])
        still = self.pairs[places] == np.repeat(keys, sizes)
        left = np.add.reduceat(still, np.cumsum(sizes) - sizes, dtype=np.int64)
        some = left > 0
        ends = np.cumsum(left[some])
        return self._counted(keys[some], ends - left[some], ends, places[still])

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
            key = self.heap[0][1]
            left, right = key >> self.shift, key & (1 << self.shift) - 1
            if left in rights or right in lefts:
                break
            places = self.places[key]
            still = self.pairs[places] == key
            if np.count_nonzero(still) < len(still):
                kept = places[still]
                count = int(np.add.reduce(self._weights(kept), dtype=np.int64))
                if count >= self.least:
                    heapq.heapreplace(self.heap, (-count, key))
                    self.places[key] = kept
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
        made = np.repeat(new.astype(self.lefts.dtype), counts)
        begins = places - np.repeat(self.lengths[lefts], counts)
        ends = places + np.repeat(self.lengths[rights], counts)
        self.rights[begins] = self.lefts[ends] = made
        before, behind = self.pairs[begins], self.pairs[ends]
        has_left = (before >= 0) & (before < first << self.shift)  # two new ones side by side: counted from the first
        has_right = behind & 1 << self.shift - 1 == 0  # a wall's half is the only one below zero
        self._add(
            np.concatenate((before[has_left], behind[has_right])), np.concatenate((begins[has_left], ends[has_right]))
        )

    def _not_overlapping(self, places: Array, symbol: int) -> Array:
        """Of a run of equal symbols every second place, from the left."""
        kept, taken = [], -1
        length = int(self.lengths[symbol])
        for place in np.sort(places).tolist():
            if place != taken:
                kept.append(place)
                taken = place + length
        return np.array(kept, dtype=places.dtype)


def learn_merges(pieces: Mapping[str, int], ids: Array, size: int, least: int = 2) -> list[tuple[int, int]]:
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

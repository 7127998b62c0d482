"""The engine's memory: one key-value cache whose slots are handed out densely, and what freed slots still hold.

Requests that run stand in slots 0..n-1, so the forward reads the cache in place. When one leaves, the last takes its
slot. With `reuse_prefix` the freed slot keeps its keys: a later prompt that begins with the same ids needs only the
rest computed, so that the tenth turn of a conversation costs no more than the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from duihua.models.decoder import Decoder
from duihua.nn.kv_cache import KVCache

SMALLEST_CAPACITY = 64


@dataclass(frozen=True, slots=True)
class Kept:
    """Ids whose keys a free slot still holds, and when it was freed (0: never used)."""

    ids: Sequence[int] = field(default_factory=tuple)
    tick: int = 0


class SlotCache:
    """Slots for `slots` sequences of up to `context` tokens. To be called within one torch inference mode and lock."""

    def __init__(self, network: Decoder, slots: int, context: int, reuse_prefix: bool) -> None:
        self.network, self.slots, self.context, self.reuse_prefix = network, slots, context, reuse_prefix
        self.cache: KVCache | None = None
        self._kept = [Kept()] * slots
        self._ticks = 0
        self._stamp = 0

    def room_for(self, tokens: int) -> KVCache:
        """The cache, with room for `tokens` in every slot; it doubles when it must grow, so memory follows use."""
        cache = self.cache
        if cache is None or cache.capacity < tokens:
            capacity = min(self.context, max(tokens, SMALLEST_CAPACITY, 2 * cache.capacity if cache is not None else 0))
            grown = self.network.new_cache(self.slots, capacity)
            if cache is not None:
                grown.keys[:, :, :, : cache.capacity] = cache.keys
                grown.values[:, :, :, : cache.capacity] = cache.values
            self.cache = cache = grown
        return cache

    def free(self, slot: int, last: int, ids: Sequence[int]) -> None:
        """Slot `slot`, whose keys are those of `ids`, is free; what stands in slot `last` moves there."""
        self._ticks += 1
        self._kept[slot] = Kept(ids, self._ticks) if self.reuse_prefix else Kept()
        self._swap(slot, last)

    def take(self, slot: int, prompt: Sequence[int]) -> int:
        """Make `slot`, the first free one, ready for `prompt`. Returns how many of its ids need not be computed.

        A conversation that goes on takes the slot it had. One that branches off takes the slot freed longest ago and
        copies what the two share, so that the other branch is kept as well. At least one id is left to compute.
        """
        if not self.reuse_prefix:
            return 0
        free = range(slot, self.slots)
        shared = {place: _common_prefix(self._kept[place].ids, prompt) for place in free}
        best = max(free, key=lambda place: shared[place])
        goes_on = shared[best] and shared[best] == len(self._kept[best].ids)
        target = best if goes_on else min(free, key=lambda place: self._kept[place].tick)
        if target != best and self.cache is not None:
            for tensor in (self.cache.keys, self.cache.values):
                tensor[:, target, :, : shared[best]] = tensor[:, best, :, : shared[best]]
        self._swap(slot, target)
        self._kept[slot] = Kept()
        return min(shared[best], len(prompt) - 1)

    def wipe(self, slot: int) -> None:
        """Overwrite keys and values that are no numbers: a mask hides numbers alone, 0 times NaN is NaN."""
        if self.cache is not None:
            for tensor in (self.cache.keys, self.cache.values):
                tensor[:, slot] = 0

    def forget(self) -> None:
        """No free slot holds anything that may be used again."""
        self._kept = [Kept()] * self.slots

    def release(self) -> None:
        """Give the memory back; it is taken again when needed."""
        self.cache = None
        self.forget()

    def left_behind(self) -> bool:
        """Whether the network has moved to another device or type than the cache's."""
        weight = self.network.embedding.weight
        cache = self.cache
        return cache is not None and (cache.keys.device != weight.device or cache.keys.dtype != weight.dtype)

    def forget_old_weights(self) -> None:
        """A guard behind `reuse_prefix`: when a weight was written to, the kept keys belong to another model."""
        if not self.reuse_prefix:
            return
        weights = self.network.parameters()
        stamp = hash(tuple((w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights))
        if stamp != self._stamp:
            self.forget()
            self._stamp = stamp

    def _swap(self, slot: int, other: int) -> None:
        """Exchange two slots; keys that nobody will read are not copied."""
        if slot == other:
            return
        self._kept[slot], self._kept[other] = self._kept[other], self._kept[slot]
        if self.cache is not None:
            for tensor in (self.cache.keys, self.cache.values):
                if self.reuse_prefix:
                    tensor[:, [slot, other]] = tensor[:, [other, slot]]
                else:
                    tensor[:, slot] = tensor[:, other]


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length

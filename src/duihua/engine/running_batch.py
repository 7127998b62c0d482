"""The batch of a step: the requests that hold a slot of the key-value cache, and the two forwards that move them on.

The running requests always stand in slots 0..n-1: when one leaves, the last takes its slot (one copy in the cache),
and the forward reads the cache in place instead of gathering rows at every token and layer. Prompts of different
lengths are filled together, padded on the right; the pads write to the place of the reply's first token, which the
cache's rule (a query sees positions up to its own) hides until that token overwrites it. Many prompts of very different
lengths are filled in a few groups of like lengths instead, since every pad is computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from duihua.engine.request import Request
from duihua.engine.sampling import SamplingBatch
from duihua.engine.slot_cache import SlotCache
from duihua.errors import GenerationError
from duihua.models.decoder import Decoder
from duihua.nn.kv_cache import KVCache

LEAST_TOKENS = 512
"""A forward over fewer tokens costs hardly less, so that smaller groups of prompts would save nothing."""


def by_length(lengths: Sequence[int]) -> list[list[int]]:
    """The places of `lengths` in groups that are filled together: one group in order where padding costs little, else
    several of like lengths, longest first. A group is closed when it holds `LEAST_TOKENS` and the next is under three
    quarters of its longest."""
    groups: list[list[int]] = []
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    for place in order:
        longest = lengths[groups[-1][0]] if groups else 0
        if groups and (lengths[place] >= 0.75 * longest or longest * len(groups[-1]) < LEAST_TOKENS):
            groups[-1].append(place)
        else:
            groups.append([place])
    if len(groups) > 1 and lengths[groups[-1][0]] * len(groups[-1]) < LEAST_TOKENS:
        rest = groups.pop()
        groups[-1] += rest
    return groups if len(groups) > 1 else [list(range(len(lengths)))]


class RunningBatch:
    """Requests in their slots: the one at index i of `requests` has slot i. To be called by one thread at a time, in torch's
    inference mode.

    slots, context, prefill_tokens, reuse_prefix: as in `Engine`.
    """

    def __init__(self, network: Decoder, slots: int, context: int, prefill_tokens: int, reuse_prefix: bool) -> None:
        self.network = network
        self.slots = slots
        self.prefill_tokens = prefill_tokens
        self.memory = SlotCache(network, slots, context, reuse_prefix)
        self.requests: list[Request] = []
        self._sampler: SamplingBatch | None = None

    def fill(self, waiting: deque[Request]) -> None:
        """Give free slots to waiting requests, which leave the queue; compute their prompts, and draw their first tokens."""
        if waiting:
            self.memory.forget_old_weights()
        fresh: list[Request] = []
        longest, first = 0, len(self.requests)
        while waiting and first + len(fresh) < self.slots:
            longest = max(longest, len(waiting[0].prompt))
            if fresh and longest * (len(fresh) + 1) > self.prefill_tokens:
                break
            request = waiting.popleft()
            self.requests.append(request)
            fresh.append(request)
            request.reused = self.memory.take(len(self.requests) - 1, request.prompt)
        if not fresh:
            return
        cache = self.memory.room_for(max(len(request.prompt) for request in fresh) + 1)
        logits_bv = self._read_prompts(fresh, first, cache)
        sampler = SamplingBatch([r.row() for r in fresh], logits_bv.shape[-1], logits_bv.device)
        self._sampler = None
        self._accept(fresh, first, sampler, logits_bv)

    def _read_prompts(self, fresh: list[Request], first: int, cache: KVCache) -> Tensor:
        """The logits (b, v) behind the last token of each prompt; the requests hold the slots from `first` on."""
        left = [len(request.prompt) - request.reused for request in fresh]
        groups = by_length(left)
        logits = []
        for group in groups:
            width = max(left[place] for place in group)
            ids_bt, positions_bt = [], []
            for place in group:
                request, pads = fresh[place], width - left[place]
                end = len(request.prompt)
                ids_bt.append([*request.prompt[request.reused :], *[0] * pads])
                positions_bt.append([*range(request.reused, end), *[end] * pads])
            in_place = first == 0 and len(groups) == 1
            rows_b = None if in_place else self._tensor([first + place for place in group])
            hidden_b1d = self.network.hidden(
                self._tensor(ids_bt),
                positions_bt=self._tensor(positions_bt),
                cache=cache,
                rows_b=rows_b,
                columns_br=self._tensor([[left[place] - 1] for place in group]),
            )
            logits.append(self.network.logits(hidden_b1d[:, 0]))
        if len(groups) == 1:
            return logits[0]
        order = [place for group in groups for place in group]
        return torch.cat(logits)[self._tensor(sorted(range(len(order)), key=order.__getitem__))]

    def decode(self) -> None:
        """One token more for every running request, in one forward."""
        if not self.requests:
            return
        tokens_bt = self._tensor([[request.ids[-1]] for request in self.requests])
        positions = [[len(request.prompt) + len(request.ids) - 1] for request in self.requests]
        cache = self.memory.room_for(max(position for (position,) in positions) + 1)
        logits_bv = self.network(tokens_bt, positions_bt=self._tensor(positions), cache=cache)[:, -1]
        if self._sampler is None:
            rows = [request.row() for request in self.requests]
            self._sampler = SamplingBatch(rows, logits_bv.shape[-1], logits_bv.device)
        self._accept(list(self.requests), 0, self._sampler, logits_bv)

    def drop_cancelled(self) -> None:
        """End the requests that were cancelled, and free their slots."""
        for index in reversed(range(len(self.requests))):
            if self.requests[index].cancelled:
                self.requests[index].end("cancelled")
                self._free(index)

    def clear(self) -> None:
        """Free every slot after a forward that failed: what the cache holds is not to be used again."""
        self.requests.clear()
        self.memory.forget()
        self._sampler = None

    def check_placement(self) -> None:
        """Drop a cache that the network has left behind by moving to another device or type."""
        if self.memory.left_behind():
            if self.requests:
                raise GenerationError("the network was moved while it was writing", remedy="Let its replies end first")
            self.memory.release()

    def _accept(self, requests: list[Request], first: int, sampler: SamplingBatch, logits_bv: Tensor) -> None:
        """Draw a token for `requests`, in the slots from `first` on, and free the slots of those that end.

        One whose logits are no numbers ends with the error; the others never meet them, and go on."""
        drawn = sampler.sample(logits_bv)
        tops = drawn.top or [[]] * len(requests)
        for index, request in enumerate(requests):
            try:
                drawn.check(index)
            except GenerationError as error:
                request.end("error", error)
                self.memory.wipe(first + index)
            else:
                request.take(drawn.tokens[index], drawn.logprobs[index], tops[index])
        for index in reversed(range(len(requests))):
            if requests[index].finish_reason is not None:
                self._free(first + index)

    def _free(self, slot: int) -> None:
        """Take the request out of its slot; the last running one moves there."""
        request, last = self.requests[slot], len(self.requests) - 1
        # The last token's keys were never needed; those of a reply that broke off are no numbers, and wiped.
        self.memory.free(slot, last, () if request.error else (request.prompt + request.ids)[:-1])
        self.requests[slot] = self.requests[last]
        self.requests.pop()
        self._sampler = None

    def _tensor(self, values: list[int] | list[list[int]]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.network.embedding.weight.device)

"""In which order a run's prompts and replies are gone through: passes and shuffles that are functions of the seed alone.

Why hashes and no random state: what a rollout asks and how it is cut into updates must be the same after an interruption
and on any number of ranks, and what is a function of (run seed, place) needs no saving.
"""

from __future__ import annotations

import torch
from torch import Tensor

from duihua.data.pairs import stable_number


def order_of_prompts(count: int, seed: int, start: int, length: int) -> list[int]:
    """Which prompts stand at places start..start+length of an endless list: pass after pass, each in a new order."""
    chosen: list[int] = []
    for place in range(start, start + length):
        passes, offset = divmod(place, count)
        if not chosen or offset == 0:
            order = permutation(count, seed, "prompts", passes)
        chosen.append(int(order[offset]))
    return chosen


def permutation(count: int, *parts: object) -> Tensor:
    """The numbers 0..count-1 in an order that is a hash of `parts`."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(stable_number(*parts)))

"""Random numbers that belong to a sample and not to a batch.

Why: with one generator for the whole batch a sample's text depends on who stands beside it, on the slot it got and on
the number of ranks; a run could then not be repeated on another machine, nor a reply from its seed. Here the number
that decides token i of a sample is a pure function of (seed of the sample, i), drawn by a counter-based generator (the
idea of Salmon et al. 2011): the finaliser of SplitMix64 (Steele, Lea and Flood 2014, figure 16) applied to seed and
counter.
"""

from __future__ import annotations

import hashlib
import secrets

import torch
from torch import Tensor

GOLDEN_GAMMA = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, SplitMix64's increment
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # SplitMix64's multipliers (Stafford's variant 13)
UNIFORM_BITS = 52  # below float64's 53, so that uniform * total < total holds exactly for every total


def sample_seed(run_seed: int, iteration: int, prompt_index: int, sample_index: int) -> int:
    """The seed of one sample, a pure hash: 0 <= seed < 2^63. The same on every rank, batch size and machine."""
    text = f"duihua sample {run_seed} {iteration} {prompt_index} {sample_index}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def fresh_seed() -> int:
    """A seed that nobody can foresee: 0 <= seed < 2^63."""
    return secrets.randbits(63)


def _signed(value: int) -> int:
    """The 64-bit pattern of `value` as the signed number that torch's int64 holds."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's own on int64 repeats the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _signed(_FIRST)
    x = (x ^ _shift(x, 27)) * _signed(_SECOND)
    return x ^ _shift(x, 31)


def uniforms(seeds_b: Tensor, positions_b: Tensor) -> Tensor:
    """A number in [0, 1) for each (seed, position) pair: float64, the shape of both int64 arguments.

    Row i depends on seeds_b[i] and positions_b[i] alone. Products wrap around modulo 2^64, on CPU and GPU alike.
    """
    state = _mix(seeds_b + _signed(GOLDEN_GAMMA)) + (positions_b + 1) * _signed(GOLDEN_GAMMA)
    return _shift(_mix(state), 64 - UNIFORM_BITS).to(torch.float64) * 2.0**-UNIFORM_BITS

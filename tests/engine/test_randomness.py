from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from duihua.engine.randomness import GOLDEN_GAMMA, _mix, _signed, fresh_seed, sample_seed, uniforms

MASK = (1 << 64) - 1


def mix_in_python(x: int) -> int:
    """SplitMix64's finaliser on Python's unbounded integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def uniform_in_python(seed: int, position: int) -> float:
    state = mix_in_python((seed + GOLDEN_GAMMA) & MASK) + (position + 1) * GOLDEN_GAMMA
    return (mix_in_python(state & MASK) >> 12) / 2**52


def test_mixing_gives_the_published_outputs_of_splitmix64() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]  # seed 1234567
    states = torch.tensor([_signed(1234567 + GOLDEN_GAMMA * n) for n in (1, 2, 3, 4)])
    assert [value & MASK for value in _mix(states).tolist()] == published


def test_uniforms_equal_the_same_hash_on_unbounded_integers() -> None:
    pairs = list(itertools.product([0, 1, 2**31, 2**62 + 12345, 2**63 - 1], [0, 1, 2, 1000, 10**6]))
    found = uniforms(torch.tensor([p[0] for p in pairs]), torch.tensor([p[1] for p in pairs])).tolist()
    assert found == [uniform_in_python(*pair) for pair in pairs]
    assert all(0.0 <= value < 1.0 for value in found)


@pytest.mark.parametrize("along", ["positions", "seeds", "both"])
def test_numbers_are_even_along_positions_and_along_seeds(
    along: str, chi_square: Callable[[torch.Tensor, torch.Tensor], float]
) -> None:
    def evenness(values: torch.Tensor, bins: int = 64) -> float:
        return chi_square(torch.histc(values, bins, 0.0, 1.0), torch.full((bins,), len(values) / bins))

    def independence(values: torch.Tensor) -> float:
        cells = torch.floor(values[:-1] * 16) * 16 + torch.floor(values[1:] * 16)  # of each number and the next
        return evenness((cells + 0.5) / 256, 256)

    count = torch.arange(200_000)
    same = torch.full_like(count, 7)
    seeds, positions = {"positions": (same, count), "seeds": (count, same), "both": (count, count)}[along]
    values = uniforms(seeds, positions)
    assert evenness(values) > 1e-3
    assert independence(values) > 1e-3
    # Negative controls: a slight bias, and neighbours that know of each other.
    assert evenness(values**1.03) < 1e-6
    copied = values.clone()
    copied[1::10] = values[0:-1:10]
    assert independence(copied) < 1e-6


def test_a_row_depends_on_its_own_seed_and_position_alone() -> None:
    seeds, positions = torch.tensor([5, 6, 7]), torch.tensor([0, 3, 9])
    together = uniforms(seeds, positions)
    for row in range(3):
        assert torch.equal(together[row : row + 1], uniforms(seeds[row : row + 1], positions[row : row + 1]))


@pytest.mark.checklist
def test_row_28_sample_seed_is_a_pure_hash_of_all_four_numbers() -> None:
    assert sample_seed(1, 2, 3, 4) == 6908577194655427410  # frozen: a change would change every run
    combinations = itertools.product(range(3), range(10), range(40), range(10))
    seeds = [sample_seed(*combination) for combination in combinations]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert sample_seed(1, 23, 0, 0) != sample_seed(12, 3, 0, 0)


def test_fresh_seeds_differ_and_fit() -> None:
    seeds = {fresh_seed() for _ in range(100)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)

"""The computed order is a permutation, looks shuffled, and follows from its seeds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from duihua.data.shuffled_range import ShuffledRange


def order(count: int, *seeds: int) -> npt.NDArray[np.int64]:
    shuffled = ShuffledRange(count, *seeds)
    return np.array([shuffled[place] for place in range(len(shuffled))], dtype=np.int64)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 63, 64, 65, 1000, 4097])
def test_each_number_comes_once(count: int) -> None:
    assert sorted(order(count, 1, 2)) == list(range(count))


def test_same_seeds_same_order_other_seeds_another() -> None:
    assert (order(500, 3, 0) == order(500, 3, 0)).all()
    assert (order(500, 3, 0) == order(500, 3, 1)).mean() < 0.02
    assert (order(500, 3, 0) == order(500, 4, 0)).mean() < 0.02


def looks_shuffled(numbers: npt.NDArray[np.int64]) -> bool:
    """Where each tenth of the places goes: a chi-square of 81 degrees of freedom, and neighbours a third of the range apart."""
    count = len(numbers)
    table = np.histogram2d(np.arange(count) * 10 // count, numbers * 10 // count, bins=10)[0]
    chi_square = float(((table - count / 100) ** 2 / (count / 100)).sum())
    apart = float(np.abs(np.diff(numbers)).mean()) / count
    return 40 < chi_square < 140 and abs(apart - 1 / 3) < 0.02


@pytest.mark.parametrize("count", [3000, 5000, 16384])
def test_looks_shuffled_and_a_stride_does_not(count: int) -> None:
    for seed in range(5):
        assert looks_shuffled(order(count, seed))
    assert looks_shuffled(np.random.default_rng(0).permutation(count))
    assert not looks_shuffled(np.arange(count))
    assert not looks_shuffled(np.arange(count) * 17 % count)


def test_outside_of_the_range() -> None:
    for place in (-1, 10):
        with pytest.raises(IndexError, match="is not in"):
            ShuffledRange(10, 1)[place]

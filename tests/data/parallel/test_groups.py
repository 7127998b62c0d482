"""Splitting pairs by groups: what shares a text stays together, and nothing of the test stands in training."""

from __future__ import annotations

import random

import pytest

from duihua.data.parallel.base import Part
from duihua.data.parallel.groups import connected_groups, parts_by_group, side_keys


def pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Pairs of which many share a side: three numbers on each."""
    draw = random.Random(seed)
    return [(f"f {draw.randrange(count)} {i % 7}", f"e {draw.randrange(count)} {i % 5}") for i in range(count)]


def split(made: list[tuple[str, str]], test: float = 0.2, validation: float = 0.1) -> list[Part]:
    return parts_by_group([side_keys(pair) for pair in made], test, validation)


def leaks(made: list[tuple[str, str]], parts: list[Part]) -> int:
    """Pairs of test or validation of which a side stands in another part."""
    found = 0
    for side in (0, 1):
        places: dict[bytes, set[str]] = {}
        for pair, part in zip(made, parts, strict=True):
            places.setdefault(side_keys(pair)[side], set()).add(part)
        found += sum(len(each) > 1 for each in places.values())
    return found


def test_pairs_that_share_a_side_are_tied_over_any_number_of_steps() -> None:
    made = [("a", "1"), ("b", "2"), ("a", "3"), ("c", "3"), ("d", "4"), ("c", "2")]
    assert connected_groups([side_keys(pair) for pair in made]) == [0, 0, 0, 0, 4, 0]


def test_the_same_text_on_different_sides_ties_nothing() -> None:
    assert connected_groups([side_keys(("no", "1")), side_keys(("2", "no"))]) == [0, 1]


def test_texts_that_read_alike_are_the_same() -> None:
    assert side_keys(("Hi!", "你好。")) == side_keys(("hi", "你好"))
    assert side_keys(("!", "?"))[0] != side_keys(("?", "?"))[0]


def test_no_text_stands_in_two_parts() -> None:
    made = pairs(2000)
    parts = split(made)
    assert leaks(made, parts) == 0
    assert 0.1 < parts.count("test") / len(parts) < 0.3
    assert 0.03 < parts.count("validation") / len(parts) < 0.2


def test_a_split_pair_by_pair_would_leak() -> None:
    """Negative control: the check finds what a split without groups does."""
    made = pairs(2000)
    draw = random.Random(1)
    careless: list[Part] = ["test" if draw.random() < 0.2 else "train" for _ in made]
    assert leaks(made, careless) > 50


def test_the_part_depends_neither_on_the_order_nor_on_other_groups() -> None:
    made = pairs(600)
    before = dict(zip(made, split(made), strict=True))
    shuffled = random.Random(3).sample(made, len(made))
    assert dict(zip(shuffled, split(shuffled), strict=True)) == before
    more = [*made, ("quite new", "entirely new")]
    after = dict(zip(more, split(more), strict=True))
    assert {pair: after[pair] for pair in made} == before


@pytest.mark.parametrize("size", [30, 200])
def test_a_group_that_is_too_large_is_trained_on(size: int) -> None:
    """One English sentence with very many translations, whatever its hash says."""
    for number in range(20):
        large = [(f"f {number} {i}", f"e {number}") for i in range(size)]
        assert set(split(large, 0.99, 0.005)) == {"train"}

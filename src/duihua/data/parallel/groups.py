"""Splitting pairs so that no text of the test stands in training, on either side.

Tatoeba has "Hi." with three Chinese translations, and 嗨 with more English ones. Splitting pair by pair would put one of them
into training and another into the test, and the test would ask what was taught. So pairs that share a text, on whichever
side, are tied together (the connected components of a graph whose edges are the pairs), and a whole group goes to one part.
Texts are compared as people read them: case, punctuation and spaces aside.

A group that holds more than a hundredth of all pairs is trained on, so that the size of the test does not hang on one draw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from duihua.data.parallel.base import TEST_SHARE, VALIDATION_SHARE, Part
from duihua.data.records import LeftOut, Parallel, normalised
from duihua.data.rows import Fault
from duihua.errors import DataError

Result = tuple[Parallel, str] | Fault
"""A pair with its place, or why there is none."""

LARGEST_SHARE = 0.01
SMALLEST_LARGE_GROUP = 20
"""A group of fewer pairs is never too large, however small the source."""


def side_keys(texts: tuple[str, str]) -> tuple[bytes, bytes]:
    """What a pair's two texts are known by: equal for texts that read alike on the same side."""
    first, second = (_key(f"{side}\x1e{normalised(text) or text}") for side, text in enumerate(texts))
    return first, second


def connected_groups(pairs: Sequence[tuple[bytes, bytes]]) -> list[int]:
    """For each pair the number of the first pair that it is tied to, however many steps away. pairs: of `side_keys`."""
    parent: list[int] = []

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]  # halve the path on the way
            number = parent[number]
        return number

    seen: dict[bytes, int] = {}
    for number, keys in enumerate(pairs):
        parent.append(number)
        for key in keys:
            known = root(seen.setdefault(key, number))
            mine = root(number)
            parent[max(known, mine)] = min(known, mine)
    return [root(number) for number in range(len(pairs))]


def parts_by_group(
    pairs: Iterable[tuple[bytes, bytes]], test_share: float = TEST_SHARE, validation_share: float = VALIDATION_SHARE
) -> list[Part]:
    """The part of each pair. A group's hash (the smallest of its keys) decides, not the order or the number of files."""
    listed = list(pairs)
    groups = connected_groups(listed)
    smallest: dict[int, bytes] = {}
    size: dict[int, int] = {}
    for group, keys in zip(groups, listed, strict=True):
        smallest[group] = min(*keys, smallest.get(group, keys[0]))
        size[group] = size.get(group, 0) + 1
    most = max(SMALLEST_LARGE_GROUP, LARGEST_SHARE * len(listed))
    part: dict[int, Part] = {}
    for group, key in smallest.items():
        draw = int.from_bytes(_key("part", key)[:8], "big") / 2**64
        if size[group] > most or draw >= test_share + validation_share:
            part[group] = "train"
        else:
            part[group] = "test" if draw < test_share else "validation"
    return [part[group] for group in groups]


def split_pairs(
    results: Iterable[Result],
    left_out: LeftOut,
    name: str,
    test_share: float = TEST_SHARE,
    validation_share: float = VALIDATION_SHARE,
) -> Iterator[tuple[Parallel, str, Part]]:
    """Every usable pair with its place and its part, in order; faults and pairs that were met before are counted in `left_out`.

    All results are read before the first is given: until the last pair is known, any two groups may still be one. Raises
    DataError where no pair is usable.
    """
    usable: list[tuple[Parallel, str]] = []
    keys: dict[tuple[bytes, bytes], None] = {}
    for result in results:
        if isinstance(result, Fault):
            left_out.add(result.reason, result.place)
            continue
        sides = side_keys(result[0].texts)
        if sides in keys:
            left_out.add("says the same as a pair before it", result[1])
            continue
        keys[sides] = None
        usable.append(result)
    if not usable:
        reason, place = next(iter(left_out.first_place.items()), ("there are no records", name))
        raise DataError(
            f"no usable record: {reason}", where=place or name, remedy="Run `duihua data check` on the source"
        )
    parts = parts_by_group(keys, test_share, validation_share)
    return ((pair, place, part) for (pair, place), part in zip(usable, parts, strict=True))


def _key(text: str, more: bytes = b"") -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass") + more).digest()[:16]

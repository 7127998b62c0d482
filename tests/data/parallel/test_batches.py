"""Batches by the number of tokens: every pair once an epoch, few pads, and a state from which it goes on with the same
batches."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch

from duihua.data.parallel.batches import EncodedPair, TokenBatches, padded_batch
from duihua.errors import DataError

END, START, PAD = 2, 1, 3


def pairs(count: int, seed: int = 0) -> list[EncodedPair]:
    """Sentences of 2 to 30 tokens whose first id is a name of their own."""
    draw = random.Random(seed)
    made = []
    for i in range(count):
        length = draw.randint(2, 30)
        made.append(EncodedPair((1000 + i, *[5] * (length - 2), END), (1000 + i, *[6] * draw.randint(0, length), END)))
    return made


def batches(groups: list[list[EncodedPair]], repeats: list[float] | None = None, **changes: Any) -> TokenBatches:
    settings = {"batch_tokens": 300, "micro_batches": 1, "start_id": START, "pad_id": PAD, "seed": 0} | changes
    return TokenBatches(groups, repeats or [1.0] * len(groups), **settings)


def names(batch: dict[str, torch.Tensor]) -> list[int]:
    return [int(row[0]) for row in batch["source"]]


def epoch(loader: TokenBatches) -> list[dict[str, torch.Tensor]]:
    return [loader.next()[0] for _ in range(loader.batches_an_epoch)]


def test_every_pair_comes_once_an_epoch_and_in_another_order_in_the_next() -> None:
    made = pairs(500)
    loader = batches([made])
    first = [name for batch in epoch(loader) for name in names(batch)]
    assert Counter(first) == {1000 + i: 1 for i in range(500)}
    second = [name for batch in epoch(loader) for name in names(batch)]
    assert Counter(second) == Counter(first) and second != first


def test_no_batch_has_more_tokens_than_asked_for_padding_included() -> None:
    for batch in epoch(batches([pairs(500)])):
        assert batch["source"].numel() + batch["target"].numel() <= 300


def test_pairs_of_like_length_stand_together_so_that_little_is_padded() -> None:
    loader = batches([pairs(2000)], batch_tokens=600)
    real = sum(len(pair.source) + len(pair.target) for pair in pairs(2000))
    whole = sum(batch["source"].numel() + batch["target"].numel() for batch in epoch(loader))
    assert loader.padding == pytest.approx(1 - real / whole)
    assert loader.padding < 0.2
    # negative control: pairs as they come waste much more
    careless = padded_batch(pairs(2000), START, PAD)
    assert 1 - real / (careless["source"].numel() + careless["target"].numel()) > 0.4


def test_batches_do_not_come_sorted_by_length() -> None:
    widths = [batch["source"].shape[1] for batch in epoch(batches([pairs(1000)]))]
    assert widths != sorted(widths) and widths != sorted(widths, reverse=True)


def test_what_a_batch_holds() -> None:
    batch = padded_batch([EncodedPair((7, 8, END), (9, END)), EncodedPair((7, END), (4, 5, 6, END))], START, PAD)
    assert batch["source"].tolist() == [[7, 8, END], [7, END, PAD]]
    assert batch["source_mask"].tolist() == [[True, True, True], [True, True, False]]
    assert batch["target"].tolist() == [[START, 9, PAD, PAD], [START, 4, 5, 6]]
    assert batch["next"].tolist() == [[9, END, PAD, PAD], [4, 5, 6, END]]
    assert batch["weights"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("stop", [0, 3, 40])
def test_a_loader_goes_on_from_its_state_with_the_same_batches(stop: int) -> None:
    made = pairs(200)
    one, other = batches([made], micro_batches=2), batches([made], micro_batches=2)
    for _ in range(stop):
        one.next()
    other.load_state_dict(one.state_dict())
    for _ in range(30):
        for left, right in zip(one.next(), other.next(), strict=True):
            assert all(torch.equal(left[name], right[name]) for name in left)
    one.next()  # negative control: a state that is one step older gives other batches
    assert any(names(a) != names(b) for a, b in zip(one.next(), other.next(), strict=True))


def test_a_weight_repeats_or_thins_a_source() -> None:
    many, few = pairs(100), [EncodedPair((5000 + i, END), (6, END)) for i in range(10)]
    counts = Counter(name for batch in epoch(batches([many, few], [0.5, 3.0])) for name in names(batch))
    assert sum(count for name, count in counts.items() if name < 5000) == 50
    assert {name: count for name, count in counts.items() if name >= 5000} == {5000 + i: 3 for i in range(10)}


def test_another_seed_gives_another_order() -> None:
    made = pairs(200)
    assert [names(b) for b in epoch(batches([made]))] != [names(b) for b in epoch(batches([made], seed=1))]


def test_a_pair_longer_than_a_batch_has_one_of_its_own_and_no_pairs_are_refused() -> None:
    long = EncodedPair((1000, *[5] * 400, END), (6, END))
    sizes = [len(batch["source"]) for batch in epoch(batches([[long, *pairs(20)[1:]]]))]
    assert 1 in sizes
    with pytest.raises(DataError, match="no pair to learn from"):
        batches([[]])

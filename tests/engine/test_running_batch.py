"""Prompts of very different lengths are filled in groups; nobody's reply may depend on it."""

from __future__ import annotations

import pytest
import torch

from duihua.engine import running_batch
from duihua.engine.engine import Engine
from duihua.engine.running_batch import by_length
from duihua.engine.sampling import SamplingSettings
from duihua.models.decoder import Decoder


def test_prompts_of_like_lengths_are_filled_together_in_order() -> None:
    assert by_length([90, 100, 80, 100]) == [[0, 1, 2, 3]]
    assert by_length([3, 60, 9]) == [[0, 1, 2]]  # too few tokens for a second forward to pay


def test_short_prompts_are_not_padded_to_the_longest_of_many() -> None:
    lengths = [100, 300, 100, 300, *[100] * 4]
    groups = by_length(lengths)
    assert groups == [[1, 3], [0, 2, 4, 5, 6, 7]]
    computed = sum(max(lengths[place] for place in group) * len(group) for group in groups)
    assert computed == sum(lengths) < max(lengths) * len(lengths)


def test_a_rest_that_is_too_small_for_a_forward_of_its_own_joins_the_group_before_it() -> None:
    assert by_length([600, 300, 300, 5]) == [[0], [1, 2, 3]]


@pytest.mark.parametrize("seed", range(5))
def test_every_prompt_is_in_one_group(seed: int) -> None:
    lengths = torch.randint(1, 400, (37,), generator=torch.Generator().manual_seed(seed)).tolist()
    groups = by_length(lengths)
    assert len(groups) > 1
    assert sorted(place for group in groups for place in group) == list(range(37))


def test_replies_are_the_same_whether_prompts_are_filled_in_groups_or_alone(
    network: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_batch, "LEAST_TOKENS", 24)
    generator = torch.Generator().manual_seed(1)
    lengths = [30, 4, 29, 3, 12, 2, 28, 11, 4, 1]
    assert len(by_length(lengths)) > 1
    prompts = [torch.randint(0, 61, (length,), generator=generator).tolist() for length in lengths]
    greedy = SamplingSettings(temperature=0.0, max_new_tokens=8, stop_ids=())

    def alone() -> list[list[int]]:
        return [Engine(network, None, slots=1).generate([prompt], greedy)[0].ids for prompt in prompts]

    def together() -> list[list[int]]:
        return [one.ids for one in Engine(network, None, slots=len(prompts)).generate(prompts, greedy)]

    expected = alone()
    assert together() == expected

    def in_the_order_of_the_groups(values: list[int], key: object = None) -> list[int]:
        return list(values)  # a control: the rows stay where their group stood

    monkeypatch.setattr(running_batch, "sorted", in_the_order_of_the_groups, raising=False)
    monkeypatch.setattr(running_batch, "by_length", lambda lengths: [[9, 8, 7, 6, 5], [4, 3, 2, 1, 0]])
    assert together() != expected

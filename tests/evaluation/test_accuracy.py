import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from duihua.data.packing import Example
from duihua.evaluation.accuracy import accuracy_of, mean_loss, score_conversations, token_accuracy


class Successor(nn.Module):
    """Says that token i is followed by i + 1, with probability e / (e + 9)."""

    def forward(self, ids: Tensor) -> Tensor:
        return torch.nn.functional.one_hot((ids + 1) % 10, 10).float()


def example(ids: list[int], mask: list[int]) -> Example:
    return Example(np.array(ids, dtype=np.int32), np.array(mask, dtype=bool))


# learnt: 2 (right), 3 (right), 7 (wrong) | 1 (wrong, after 5)
EXAMPLES = [example([0, 1, 2, 3, 7], [0, 0, 1, 1, 1]), example([4, 5, 1], [0, 0, 1])]


def test_only_learnt_tokens_count() -> None:
    score = token_accuracy(Successor(), EXAMPLES)
    assert score.accuracy.value == 2 / 4
    assert score.accuracy.n == 4
    assert score.conversations == 2
    everything = [example(e.token_ids.tolist(), [0] + [1] * e.length) for e in EXAMPLES]  # the user's words too
    assert token_accuracy(Successor(), everything).accuracy.value != 2 / 4


def test_loss_is_weighted_by_token_and_not_by_conversation() -> None:
    hit, miss = math.log(math.e + 9) - 1, math.log(math.e + 9)
    score = token_accuracy(Successor(), EXAMPLES)
    assert score.loss == pytest.approx((2 * hit + 2 * miss) / 4)
    assert score.perplexity == pytest.approx(math.exp(score.loss))
    assert score.loss != pytest.approx(((2 * hit + miss) / 3 + miss) / 2, rel=1e-3)  # mean of conversation means


def test_interval_holds_the_value() -> None:
    many = EXAMPLES * 20
    accuracy = token_accuracy(Successor(), many).accuracy
    assert accuracy.low < accuracy.value < accuracy.high
    assert token_accuracy(Successor(), many).accuracy == accuracy


def test_nothing_to_count_gives_not_a_number() -> None:
    score = token_accuracy(Successor(), [example([1, 2], [0, 0])])
    assert math.isnan(score.accuracy.value)
    assert score.accuracy.n == 0


def test_what_the_user_says_in_between_is_not_scored() -> None:
    """Two turns of the assistant: predictions are made from the first on, and counted are the learnt ones."""
    turns = example([9, 0, 1, 2, 7, 8, 3], [0, 0, 1, 1, 0, 0, 1])  # learnt: 1 and 2 (right), 3 (wrong, after 8)
    (scored,) = score_conversations(Successor(), [turns])
    hit, miss = math.log(math.e + 9) - 1, math.log(math.e + 9)
    assert (scored.counted, scored.right) == (3, 2)
    assert scored.nats == pytest.approx(2 * hit + miss)
    everything = example(turns.token_ids.tolist(), [0, 1, 1, 1, 1, 1, 1])
    assert score_conversations(Successor(), [everything])[0].nats != pytest.approx(scored.nats)


def test_parts_weighted_by_their_tokens_are_the_whole() -> None:
    scored = score_conversations(Successor(), EXAMPLES)
    assert accuracy_of(scored) == token_accuracy(Successor(), EXAMPLES)
    parts = [mean_loss([one]) * one.counted for one in scored]
    assert sum(parts) / 4 == pytest.approx(mean_loss(scored), abs=1e-12)
    assert sum(mean_loss([one]) for one in scored) / 2 != pytest.approx(mean_loss(scored), abs=1e-3)
    assert math.isnan(mean_loss([]))

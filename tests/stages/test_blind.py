"""Blind judging: a judge that looks at places and not at replies changes nothing, and the interval is Wilson's over prompts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from duihua.evaluation.intervals import wilson
from duihua.stages import blind
from duihua.stages.blind import blind_verdicts, pair_judge, win_rate
from duihua.stages.replies import Prompt, Reply

MANY = 40


def prompts(count: int, each: int = 1) -> list[Prompt]:
    return [Prompt(i, [{"role": "user", "content": f"q{i}"}], [i]) for i in range(count) for _ in range(each)]


def replies(*firsts: int) -> list[Reply]:
    """Replies whose only id says how good they are."""
    return [Reply([number], [0.0], True) for number in firsts]


def honest(asked: Sequence[Prompt], first: Sequence[Reply], second: Sequence[Reply]) -> list[float]:
    return [one.ids[0] - other.ids[0] for one, other in zip(first, second, strict=True)]


def loves_the_first(asked: Sequence[Prompt], first: Sequence[Reply], second: Sequence[Reply]) -> list[float]:
    return [1.0] * len(first)


def leans(asked: Sequence[Prompt], first: Sequence[Reply], second: Sequence[Reply]) -> list[float]:
    """Sees what is better, and adds 5 for standing in front."""
    return [margin + 5 for margin in honest(asked, first, second)]


def test_an_honest_judge_names_the_better_side_whoever_stands_first() -> None:
    verdicts = blind_verdicts(honest, prompts(4), replies(1, 2, 3, 9), replies(2, 1, 3, 1))
    assert verdicts == [1, -1, 0, -1]


def test_a_judge_that_loves_a_place_ties_everything() -> None:
    asked = prompts(MANY)
    assert blind_verdicts(loves_the_first, asked, replies(*[1] * MANY), replies(*[2] * MANY)) == [0] * MANY
    rate = win_rate(asked, [0] * MANY)
    assert (rate.interval.value, rate.ties) == (0.5, MANY)


def test_one_order_alone_would_believe_such_a_judge() -> None:
    """The control: with the new reply always in front, the judge's love of the place would be a triumph."""
    asked, old, new = prompts(MANY), replies(*[1] * MANY), replies(*[2] * MANY)
    assert sum(margin > 0 for margin in loves_the_first(asked, new, old)) == MANY


def test_a_leaning_judge_decides_only_what_is_clear_in_both_orders() -> None:
    assert blind_verdicts(leans, prompts(3), replies(1, 1, 20), replies(4, 20, 1)) == [0, 1, -1]


def test_the_coin_lays_either_side_in_front_about_as_often() -> None:
    seen: list[int] = []

    def watching(asked: Sequence[Prompt], first: Sequence[Reply], second: Sequence[Reply]) -> list[float]:
        seen.append(sum(one.ids[0] == 2 for one in first))
        return honest(asked, first, second)

    blind_verdicts(watching, prompts(MANY), replies(*[1] * MANY), replies(*[2] * MANY), seed=3)
    assert 10 < seen[0] < 30
    assert seen == [seen[0], MANY - seen[0]], "the second time turned round"


def test_equal_replies_tie_whatever_the_judge_says() -> None:
    def noisy(asked: Sequence[Prompt], first: Sequence[Reply], second: Sequence[Reply]) -> list[float]:
        noisy.calls += 1  # type: ignore[attr-defined]
        return [1e-7 if noisy.calls == 1 else -1e-7] * len(first)  # type: ignore[attr-defined]

    noisy.calls = 0  # type: ignore[attr-defined]
    assert blind_verdicts(noisy, prompts(2), replies(5, 5), replies(5, 6)) != [0, 0]
    noisy.calls = 0  # type: ignore[attr-defined]
    assert blind_verdicts(noisy, prompts(2), replies(5, 5), replies(5, 5)) == [0, 0]


def test_a_reward_model_judges_pairs_by_the_difference() -> None:
    judge = pair_judge(lambda asked, read: torch.tensor([float(reply.ids[0]) for reply in read]))
    assert judge(prompts(2), replies(3, 1), replies(1, 1)) == [2.0, 0.0]


def test_the_interval_counts_prompts_and_a_tie_is_half_a_win() -> None:
    rate = win_rate(prompts(3, each=2), [1, 1, 1, 0, -1, -1])  # shares 1, 0.75, 0
    assert rate.shares == [1.0, 0.75, 0.0]
    assert (rate.wins, rate.ties, rate.losses) == (3, 1, 2)
    assert rate.interval == wilson(1.75, 3)
    assert rate.interval.n == 3, "not 6: two replies to one prompt are alike"
    narrow = wilson(3.5, 6)
    assert narrow.high - narrow.low < rate.interval.high - rate.interval.low


def test_wilson_by_hand() -> None:
    """8 of 8: low = 1 / (1 + 1.96^2 / 8) = 0.6756."""
    assert wilson(8, 8).low == pytest.approx(0.6756, abs=1e-4)
    assert blind.WinRate([1.0] * 8, 8, 0, 0).to_mapping()["low"] == pytest.approx(0.6756, abs=1e-4)

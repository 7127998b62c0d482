"""Two policies on the same prompts, judged blind and in both orders.

Blind: the judge gets two replies and no names, and a coin that is a hash of the prompt decides which of them stands first.
Both orders: judges lean towards a place (Zheng et al. 2023, "Judging LLM-as-a-Judge", table 2: even the best of their
models named the same reply in both orders for two pairs in three), so each pair is laid before the judge twice, the second
time turned round, and a side wins only where both verdicts name it. Anything else is a tie, and a tie is half a win.

Why the interval counts prompts and not replies: replies to one prompt are alike. A prompt's share of wins lies in [0, 1], so
its variance is at most that of a coin of the same mean, and Wilson's interval over prompts errs on the wide side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from duihua.engine.randomness import sample_seed
from duihua.evaluation.intervals import Interval, wilson
from duihua.stages.replies import Prompt, Reply, Scorer

COIN = 2**31 + 2
"""Stands for the iteration in the seed of a prompt's coin: no rollout has it, and no draw of replies."""

PairJudge = Callable[[Sequence[Prompt], Sequence[Reply], Sequence[Reply]], list[float]]
"""By how much the first of two replies to each prompt is better than the second: below 0 it is worse, 0 says neither."""


@dataclass(frozen=True)
class WinRate:
    """How often one side won. shares: of each prompt, the mean over its replies of 1 for a win, a half for a tie, 0."""

    shares: list[float]
    wins: int
    ties: int
    losses: int

    @property
    def interval(self) -> Interval:
        """The share of wins with its 95 % interval; n counts prompts."""
        return wilson(sum(self.shares), len(self.shares))

    def to_mapping(self) -> dict[str, Any]:
        """{"value", "low", "high", "n", "wins", "ties", "losses"}, as it stands in results."""
        counts = {"wins": self.wins, "ties": self.ties, "losses": self.losses}
        return {**self.interval.to_dict(), **counts}


def pair_judge(scorer: Scorer) -> PairJudge:
    """A judge of pairs out of one that gives each reply a number: the difference of the two."""

    def judge(prompts: Sequence[Prompt], first: Sequence[Reply], second: Sequence[Reply]) -> list[float]:
        asked = [prompt for prompt in prompts for _ in range(2)]
        replies = [reply for pair in zip(first, second, strict=True) for reply in pair]
        scores = scorer(asked, replies).tolist()
        return [scores[2 * place] - scores[2 * place + 1] for place in range(len(prompts))]

    return judge


def blind_verdicts(
    judge: PairJudge, prompts: Sequence[Prompt], old: Sequence[Reply], new: Sequence[Reply], seed: int = 0
) -> list[int]:
    """For each prompt 1 where the new reply wins, -1 where the old one does, 0 for a tie.

    Replies of the same ids tie without a verdict. The three lists go together, prompt by prompt.
    """
    tossed = [sample_seed(seed, COIN, prompt.index, place) % 2 == 1 for place, prompt in enumerate(prompts)]
    pairs = list(zip(old, new, strict=True))
    first = [pair[front] for pair, front in zip(pairs, tossed, strict=True)]
    second = [pair[not front] for pair, front in zip(pairs, tossed, strict=True)]
    forward, turned = judge(prompts, first, second), judge(prompts, second, first)
    verdicts = []
    for (before, after), new_first, one, other in zip(pairs, tossed, forward, turned, strict=True):
        names_first, names_second = one > 0 > other, one < 0 < other
        if before.ids == after.ids or not (names_first or names_second):
            verdicts.append(0)
        else:
            verdicts.append(1 if names_first == new_first else -1)
    return verdicts


def win_rate(prompts: Sequence[Prompt], verdicts: Sequence[int]) -> WinRate:
    """The verdicts put together; several replies to one prompt (the same `index`) count as one prompt."""
    by_prompt: defaultdict[int, list[float]] = defaultdict(list)
    for prompt, verdict in zip(prompts, verdicts, strict=True):
        by_prompt[prompt.index].append((1 + verdict) / 2)
    shares = [sum(found) / len(found) for found in by_prompt.values()]
    return WinRate(shares, *(sum(verdict == kind for verdict in verdicts) for kind in (1, 0, -1)))

"""The tables of a comparison out of replies and scores: pure functions, so that each can be checked by hand.

A win rate never stands without its interval, and a gain never without the standard error of the paired difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from duihua.evaluation.intervals import paired_mean
from duihua.evaluation.repetition import repeated_share
from duihua.stages.best_of_n import Candidates, best_weights, kl_bound
from duihua.stages.blind import blind_verdicts, pair_judge, win_rate
from duihua.stages.replies import Prompt, Reply, Scorer


@dataclass(frozen=True)
class Written:
    """A model's replies to the held-out prompts. judged: the judge's scores; rewards: the training reward's; kl: nats, of each
    reply (the log-ratio) or of all (known beforehand), None where there is no such number."""

    replies: list[Reply]
    texts: list[str]
    judged: list[float]
    rewards: list[float] | None
    kl: list[float] | float | None

    @property
    def nats(self) -> float | None:
        """KL from the reference in nats a reply."""
        return sum(self.kl) / len(self.kl) if isinstance(self.kl, list) else self.kl


@dataclass(frozen=True)
class Candidate:
    """Best of n. replies: the chosen ones; kl: the bound of their distance; both scores of all candidates, (prompts, n)."""

    replies: list[Reply]
    kl: float
    rewards_pn: Tensor
    judged_pn: Tensor | None

    @classmethod
    def of(cls, found: Candidates, scorer: Scorer | None) -> Candidate:
        """The best of each prompt's candidates by the score that they were found with."""
        n = found.scores_pn.shape[1]
        chosen = [row[place or 0] for row, place in zip(found.replies, found.best(), strict=True)]
        judged = None
        if scorer is not None:
            asked = [prompt for prompt in found.prompts for _ in range(n)]
            judged = scorer(asked, [reply for row in found.replies for reply in row]).view(-1, n)
        return cls(chosen, kl_bound(n), found.scores_pn, judged)


def remembered(scorer: Scorer) -> Scorer:
    """A scorer that reads no reply to a prompt twice: each model meets every other one, in both orders."""
    known: dict[tuple[int, tuple[int, ...]], float] = {}

    def score(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> Tensor:
        keys = [(prompt.index, tuple(reply.ids)) for prompt, reply in zip(prompts, replies, strict=True)]
        new = {key: place for place, key in enumerate(keys) if key not in known}
        if new:
            places = list(new.values())
            found = scorer([prompts[place] for place in places], [replies[place] for place in places]).tolist()
            known.update(zip(new, found, strict=True))
        return torch.tensor([known[key] for key in keys])

    return score


def matrix(
    prompts: Sequence[Prompt], written: Mapping[str, Written], scorer: Scorer, seed: int
) -> list[dict[str, Any]]:
    """How often each model wins over each that stands before it: {"model", "over", "value", "low", "high", "n", ...}."""
    names, judge, rows = list(written), pair_judge(scorer), []
    for place, name in enumerate(names):
        for other in names[:place]:
            verdicts = blind_verdicts(judge, prompts, written[other].replies, written[name].replies, seed)
            rows.append({"model": name, "over": other, **win_rate(prompts, verdicts).to_mapping()})
    return rows


def against(
    prompts: Sequence[Prompt], written: Mapping[str, Written], reference: str, scorer: Scorer, seed: int
) -> dict[str, Any]:
    """Each model against the reference: win rate, gains, KL, and what the judge does not see (length, repetition, endings).

    `before` is the reference and `after` the model; changes are means of paired differences with their standard errors.
    """
    old, found = written[reference], {}
    for name, new in written.items():
        if name == reference:
            continue
        verdicts = blind_verdicts(pair_judge(scorer), prompts, old.replies, new.replies, seed)
        found[name] = {
            "win_rate": win_rate(prompts, verdicts).to_mapping(),
            "judge_gain": paired_mean(old.judged, new.judged).to_dict(),
            "reward_gain": paired_mean(old.rewards, new.rewards).to_dict() if old.rewards and new.rewards else None,
            "kl_nats": new.nats,
            "length": _change([len(reply.ids) for reply in old.replies], [len(reply.ids) for reply in new.replies]),
            "repetition_rate": _change([repeated_share(t) for t in old.texts], [repeated_share(t) for t in new.texts]),
            "eos_rate": _change([reply.ended for reply in old.replies], [reply.ended for reply in new.replies]),
        }
    return found


def _change(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    return {
        "before": sum(before) / len(before),
        "after": sum(after) / len(after),
        "change": paired_mean(before, after).to_dict(),
    }


def best_of_curve(found: Candidate) -> list[dict[str, float]]:
    """For m = 1..n what the best of m by the reward is worth to the judge, with its standard error over prompts.

    The expectation over all choices of m among the n candidates (best_of_n.py): ordered by the reward, candidate i is the best
    with a chance that does not depend on its score, and the judge's scores are averaged with these chances.
    """
    assert found.judged_pn is not None
    n = found.rewards_pn.shape[1]
    order_pn = found.rewards_pn.argsort(dim=1, stable=True)
    ordered_pn = found.judged_pn.double().gather(1, order_pn)
    one = torch.tensor(best_weights(n, 1), dtype=torch.float64)
    rows = []
    for m in range(1, n + 1):
        more = torch.tensor(best_weights(n, m), dtype=torch.float64) - one  # so that one of one gains just 0
        gains_p = ordered_pn @ more
        error = float(gains_p.std()) / math.sqrt(len(gains_p)) if len(gains_p) > 1 else math.nan
        rows.append({"n": m, "gain": float(gains_p.mean()), "standard_error": error, "kl": kl_bound(m)})
    return rows


def frontier(written: Mapping[str, Written], reference: str, curve: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Gain by the judge against KL: a point for each trained model, a curve for best-of-n (whose KL is a bound)."""
    points = [
        {"model": name, "kl": new.nats, **paired_mean(written[reference].judged, new.judged).to_dict()}
        for name, new in written.items()
        if name != reference and isinstance(new.kl, list)
    ]
    return {"points": points, "best_of_n": [dict(row) for row in curve]}


def worse(
    prompts: Sequence[Prompt], written: Mapping[str, Written], reference: str, count: int
) -> dict[str, list[dict[str, Any]]]:
    """For each trained model the replies by which the judge's score fell furthest below the reference's, the furthest first."""
    old, found = written[reference], {}
    for name, new in written.items():
        if not isinstance(new.kl, list):
            continue
        falls = [
            (after - before, place) for place, (before, after) in enumerate(zip(old.judged, new.judged, strict=True))
        ]
        found[name] = [
            {
                "prompt": prompts[place].messages[-1]["content"],
                "messages": prompts[place].messages,
                "language": prompts[place].language,
                "text_before": old.texts[place],
                "text_after": new.texts[place],
                "judge_before": old.judged[place],
                "judge_after": new.judged[place],
            }
            for fall, place in sorted(falls)[:count]
            if fall < 0
        ]
    return found


def time_machine(shown: Sequence[Prompt], samples: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Each prompt with what every model replied to it."""
    return [
        {
            "language": prompt.language,
            "prompt": prompt.messages[-1]["content"],
            "messages": prompt.messages,
            "replies": {name: texts[place] for name, texts in samples.items()},
        }
        for place, prompt in enumerate(shown)
    ]

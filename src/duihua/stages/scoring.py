"""Judging replies: by a reward model, or by a rule written in Python.

The reward is read at the reply's stop token, the last real one of its row. A reply that was cut before it stopped is
closed with a stop token for the reward model, which has never seen another ending; what being cut costs is PPO's to say
(`missing_end`). Scores are normalised: mean 0 and standard deviation 1 over replies of the reference policy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from duihua.data.records import Message
from duihua.models.bundle import Bundle
from duihua.models.heads import ScoredDecoder
from duihua.stages.replies import Prompt, Reply, Scorer
from duihua.text.tokenizer import Tokenizer

Rule = Callable[[list[Message], str], float]
"""A reward in Python: the messages of the prompt and the reply's text give a number."""


def end_scores(network: ScoredDecoder, token_ids_bt: Tensor, lengths_b: Tensor) -> Tensor:
    """The score at the last real token of each right-padded row, (b,) in fp32.

    Under causal attention a token sees nothing to its right, so neither pads nor batch mates can change it.
    """
    scores_b1: Tensor = network(token_ids_bt, columns_br=lengths_b[:, None] - 1)
    return scores_b1[:, 0]


def pad_rows(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """(b, t) ids padded on the right, and the lengths (b,)."""
    width = max(len(row) for row in rows)
    token_ids = torch.tensor([list(row) + [pad_id] * (width - len(row)) for row in rows])
    return token_ids, torch.tensor([len(row) for row in rows])


@torch.no_grad()
def score_rows(
    network: ScoredDecoder,
    rows: Sequence[Sequence[int]],
    pad_id: int,
    *,
    micro_batch: int = 32,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Raw scores of many rows, (n,) on the CPU; rows of like length are read together."""
    device = network.score.weight.device
    scores = torch.zeros(len(rows))
    order = sorted(range(len(rows)), key=lambda place: (len(rows[place]), place))
    autocast = torch.autocast(device.type, dtype=dtype) if dtype else contextlib.nullcontext()
    for start in range(0, len(order), micro_batch):
        places = order[start : start + micro_batch]
        token_ids, lengths = pad_rows([rows[place] for place in places], pad_id)
        with autocast:
            scores[places] = end_scores(network, token_ids.to(device), lengths.to(device)).cpu()
    return scores


def reward_scorer(bundle: Bundle, *, micro_batch: int = 32, dtype: torch.dtype | None = None) -> Scorer:
    """The reward model of a bundle as a scorer, normalised as the bundle says (as it is where it says nothing)."""
    network, tokenizer = bundle.reward, bundle.tokenizer
    mean = bundle.normalisation.mean if bundle.normalisation else 0.0
    deviation = bundle.normalisation.standard_deviation if bundle.normalisation else 1.0

    def score(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> Tensor:
        rows = [closed_row(prompt.ids, reply, tokenizer) for prompt, reply in zip(prompts, replies, strict=True)]
        return (score_rows(network, rows, tokenizer.pad_id, micro_batch=micro_batch, dtype=dtype) - mean) / deviation

    return score


def closed_row(prompt_ids: Sequence[int], reply: Reply, tokenizer: Tokenizer) -> list[int]:
    """Prompt and reply as the reward model reads them: ending with the stop token of a turn."""
    body = reply.ids[:-1] if reply.ended else reply.ids
    return [*prompt_ids, *body, tokenizer.im_end_id]


def rule_scorer(rule: Rule, tokenizer: Tokenizer) -> Scorer:
    """A Python rule on texts as a scorer."""

    def score(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> Tensor:
        return torch.tensor(
            [
                float(rule(prompt.messages, tokenizer.decode(reply.ids)))
                for prompt, reply in zip(prompts, replies, strict=True)
            ]
        )

    return score

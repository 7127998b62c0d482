"""Held-out loss and token accuracy on conversations: how often the greedy choice is the assistant's own next token.

Why the interval resamples conversations: tokens of one conversation stand or fall together, so counting them as
independent trials makes the interval several times too narrow. Counted are the tokens that the assistant writes, its
stop token among them, and nothing else: what the user writes is given, not predicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from duihua.data.packing import Example
from duihua.evaluation.intervals import Interval, bootstrap_ratio
from duihua.evaluation.next_token import predict


@dataclass(frozen=True)
class TokenAccuracy:
    """loss: nats a counted token. accuracy: share of right greedy choices; its `n` is the number of counted tokens."""

    loss: float
    accuracy: Interval
    conversations: int

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(min(self.loss, 700.0))


@dataclass(frozen=True)
class Scored:
    """One conversation: how many of its tokens are counted, their nats together, and how many greedy choices are right."""

    counted: int
    nats: float
    right: int


def score_conversations(
    network: nn.Module, examples: Sequence[Example], device: str | torch.device = "cpu"
) -> list[Scored]:
    """Score encoded conversations, each from its own start. network: token ids (b, t) -> logits (b, t, v)."""
    masks = [example.loss_mask[1:] for example in examples]
    learnt = [len(mask) - int(mask.argmax()) if mask.any() else 1 for mask in masks]  # from the first counted token on
    made = predict(network, [example.token_ids.tolist() for example in examples], device, learnt)
    found = []
    for mask, size, one in zip(masks, learnt, made, strict=True):
        counted = mask[-size:]
        found.append(Scored(int(counted.sum()), float(one.nats[counted].sum()), int(one.right[counted].sum())))
    return found


def mean_loss(scored: Sequence[Scored]) -> float:
    """Nats a counted token; not a number where none is counted."""
    tokens = sum(one.counted for one in scored)
    return sum(one.nats for one in scored) / tokens if tokens else math.nan


def accuracy_of(scored: Sequence[Scored], seed: int = 0) -> TokenAccuracy:
    """Loss and accuracy of conversations that were scored."""
    tokens = sum(one.counted for one in scored)
    if tokens == 0:
        return TokenAccuracy(math.nan, Interval(math.nan, math.nan, math.nan, 0), len(scored))
    share = bootstrap_ratio([one.right for one in scored], [one.counted for one in scored], seed=seed)
    return TokenAccuracy(mean_loss(scored), Interval(share.value, share.low, share.high, tokens), len(scored))


def token_accuracy(
    network: nn.Module, examples: Sequence[Example], *, device: str | torch.device = "cpu", seed: int = 0
) -> TokenAccuracy:
    """Score encoded conversations and sum them up. network: token ids (b, t) -> logits (b, t, v)."""
    return accuracy_of(score_conversations(network, examples, device), seed)

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


def token_accuracy(
    network: nn.Module, examples: Sequence[Example], *, device: str | torch.device = "cpu", seed: int = 0
) -> TokenAccuracy:
    """Score encoded conversations, each from its own start. network: token ids (b, t) -> logits (b, t, v)."""
    nats, right, counted = [], [], []
    for example, made in zip(examples, predict(network, [e.token_ids.tolist() for e in examples], device), strict=True):
        mask = example.loss_mask[1:]
        nats.append(float(made.nats[mask].sum()))
        right.append(int(made.right[mask].sum()))
        counted.append(int(mask.sum()))
    tokens = sum(counted)
    if tokens == 0:
        return TokenAccuracy(math.nan, Interval(math.nan, math.nan, math.nan, 0), len(examples))
    share = bootstrap_ratio(right, counted, seed=seed)
    return TokenAccuracy(sum(nats) / tokens, Interval(share.value, share.low, share.high, tokens), len(examples))

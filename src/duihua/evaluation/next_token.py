"""The loss and the rightness of every next-token prediction in a list of sequences: what all text metrics are sums of.

Why sequences are grouped by length and padded on the right: a causal model never looks to the right, so the pads change
nothing for the tokens before them, no mask is needed and the fast attention path is used. Pads are never counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

LOGITS_AT_ONCE = 2**24
"""Logits held in memory at a time (64 MiB in fp32), whatever the vocabulary."""


@dataclass(frozen=True)
class Predictions:
    """One sequence's predictions of tokens 1..n. nats: -log p of each, (n,). right: whether it was likeliest, (n,)."""

    nats: NDArray[np.float64]
    right: NDArray[np.bool_]


@torch.inference_mode()
def predict(
    network: nn.Module, sequences: Sequence[Sequence[int]], device: str | torch.device = "cpu"
) -> list[Predictions]:
    """Score every token of each sequence but its first, given all those before it, in the given order.

    network: token ids (b, t) -> logits (b, t, v). Each sequence has 2 ids or more, at most the model's context + 1.
    The network is put into evaluation mode for the call (no dropout) and back.
    """
    results: list[Predictions | None] = [None] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    was_training, vocabulary = network.training, 1
    network.eval()
    try:
        while order:
            longest = len(sequences[order[-1]]) - 1
            rows = max(1, LOGITS_AT_ONCE // (longest * vocabulary)) if vocabulary > 1 else 1
            chosen, order = order[-rows:], order[:-rows]
            ids = torch.zeros((len(chosen), longest + 1), dtype=torch.long)
            for row, index in enumerate(chosen):
                ids[row, : len(sequences[index])] = torch.as_tensor(np.asarray(sequences[index], dtype=np.int64))
            ids = ids.to(device)
            logits = network(ids[:, :-1])
            vocabulary = logits.shape[-1]
            targets = ids[:, 1:]
            right = logits.argmax(dim=-1) == targets
            logits = logits.float()
            nats = logits.logsumexp(dim=-1) - logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
            nats_host, right_host = nats.double().cpu().numpy(), right.cpu().numpy()
            for row, index in enumerate(chosen):
                n = len(sequences[index]) - 1
                results[index] = Predictions(nats_host[row, :n].copy(), right_host[row, :n].copy())
    finally:
        network.train(was_training)
    return [result for result in results if result is not None]

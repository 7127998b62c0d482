"""The loss and the rightness of every next-token prediction in a list of sequences: what all text metrics are sums of.

Why sequences are grouped by length and padded on the right: a causal model never looks to the right, so the pads change
nothing for the tokens before them, no mask is needed and the fast attention path is used. Pads are never counted.

Why logits only where they are wanted: the head is the largest matrix of a small model, and where the end of a sentence is
scored after a long beginning, the beginning needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from duihua.models.decoder import Decoder

LOGITS_AT_ONCE = 2**24
"""Logits held in memory at a time (64 MiB in fp32), whatever the vocabulary."""
TOKENS_AT_ONCE = 2**13
"""Tokens of one forward where few logits are wanted."""


@dataclass(frozen=True)
class Predictions:
    """One sequence's predictions of tokens 1..n. nats: -log p of each, (n,). right: whether it was likeliest, (n,)."""

    nats: NDArray[np.float64]
    right: NDArray[np.bool_]


@torch.inference_mode()
def predict(
    network: nn.Module,
    sequences: Sequence[Sequence[int]],
    device: str | torch.device = "cpu",
    last: Sequence[int] | None = None,
) -> list[Predictions]:
    """Score every token of each sequence but its first, given all those before it, in the given order.

    network: token ids (b, t) -> logits (b, t, v). Each sequence has 2 ids or more, at most the model's context + 1.
    last: of sequence i only the last `last[i]` predictions are wanted (1 or more, at most all); None for all of them.
    The network is put into evaluation mode for the call (no dropout) and back.
    """
    results: list[Predictions | None] = [None] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    vocabulary = network.config.vocabulary_size if isinstance(network, Decoder) else 1  # 1: not known yet
    was_training = network.training
    network.eval()
    try:
        while order:
            longest = len(sequences[order[-1]]) - 1
            order, chosen = _batch(order, longest, vocabulary, last)
            ids = torch.zeros((len(chosen), longest + 1), dtype=torch.long)
            wanted = torch.zeros((len(chosen), longest), dtype=torch.bool)
            counts = []
            for row, index in enumerate(chosen):
                n = len(sequences[index]) - 1
                counts.append(n if last is None else min(n, last[index]))
                ids[row, : n + 1] = torch.as_tensor(np.asarray(sequences[index], dtype=np.int64))
                wanted[row, n - counts[-1] : n] = True
            ids, wanted = ids.to(device), wanted.to(device)
            logits = _wanted_logits(network, ids[:, :-1], wanted)
            vocabulary = logits.shape[-1]
            targets = ids[:, 1:][wanted]
            right = (logits.argmax(dim=-1) == targets).cpu().numpy()
            logits = logits.float()
            nats = logits.logsumexp(dim=-1) - logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
            nats_host, ends = nats.double().cpu().numpy(), np.cumsum(counts)
            for index, end, count in zip(chosen, ends, counts, strict=True):
                results[index] = Predictions(nats_host[end - count : end].copy(), right[end - count : end].copy())
    finally:
        network.train(was_training)
    return [result for result in results if result is not None]


def _batch(order: list[int], longest: int, vocabulary: int, last: Sequence[int] | None) -> tuple[list[int], list[int]]:
    """The sequences that stay, and those of the next forward: the longest ones, as many as memory should hold.

    The first batch is one sequence where the vocabulary's size is not known before.
    """
    if vocabulary == 1:
        rows = 1
    elif last is None:
        rows = max(1, LOGITS_AT_ONCE // (longest * vocabulary))
    else:
        rows, logits = 1, last[order[-1]] * vocabulary
        while rows < min(len(order), TOKENS_AT_ONCE // longest):
            logits += last[order[-1 - rows]] * vocabulary
            if logits > LOGITS_AT_ONCE:
                break
            rows += 1
    return order[:-rows], order[-rows:]


def _wanted_logits(network: nn.Module, ids_bt: Tensor, wanted_bt: Tensor) -> Tensor:
    """Logits (n, v) of the n wanted positions, row by row."""
    if isinstance(network, Decoder):
        return network.logits(network.hidden(ids_bt)[wanted_bt])
    logits_btv: Tensor = network(ids_bt)
    return logits_btv[wanted_bt]

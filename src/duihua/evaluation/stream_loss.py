"""Loss of a recurrent language model on one long stream, its state carried from the first token to the last.

That is how language models were measured on the Penn Treebank: no windows, each token predicted from all before it, ends of
sentences included, exp(nats / tokens) at the end. `rows` reads so many equal pieces side by side, which is quicker; each
piece then begins without memory (its first token still sees the one before), so a figure to be compared has one row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from duihua.models.recurrent import RecurrentLM, States

WINDOW = 128
"""Tokens of each row between two looks at the logits: bounds memory, changes nothing else."""


@dataclass(frozen=True)
class StreamLoss:
    """Summed negative log-probabilities and how many tokens they are of."""

    nats: float
    tokens: int

    @property
    def mean(self) -> float:
        """Nats a token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(nats / tokens): every token counts alike."""
        return math.exp(min(self.mean, 700.0))


@torch.no_grad()
def stream_loss(network: RecurrentLM, ids: npt.NDArray[np.int64], rows: int = 1) -> StreamLoss:
    """Loss of `ids` after the end token, every one counted once; `network` is left in the mode that it was in."""
    was_training = network.training
    network.eval()
    device = network.embedding.weight.device
    rows = max(1, min(rows, len(ids)))
    each = -(-len(ids) // rows)
    stream = np.concatenate(([network.config.end_id], ids, np.zeros(rows * each - len(ids), dtype=np.int64)))
    inputs = torch.from_numpy(stream[:-1].reshape(rows, each).copy()).to(device)
    targets = torch.from_numpy(stream[1:].reshape(rows, each).copy()).to(device)
    counted = (torch.arange(rows * each, device=device) < len(ids)).reshape(rows, each).float()
    nats = 0.0
    states: States | None = None
    for start in range(0, each, WINDOW):
        part = slice(start, start + WINDOW)
        hidden, states = network(inputs[:, part], states)
        total, _ = network.next_token_losses(hidden, targets[:, part], counted[:, part])
        nats += float(total)
    network.train(was_training)
    return StreamLoss(nats, len(ids))

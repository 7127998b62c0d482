"""The recurrent language model: embedding, recurrent layers, and the embedding again as output layer.

    x_t = E[w_t];  h_t = layer_L(... layer_1(x_t, state_1) ..., state_L);  P(w_{t+1} | w_1..w_t) = softmax(E h_t)

All that the model knows of the past is the state, of the same size whatever was read: that is its strength (a token costs
the same at any length) and its weakness (what does not fit is forgotten). Parameters: v d for the embedding (once more
v e_L where the head is not tied), and for each layer blocks x e x (d + e + 2), with 1, 3 or 4 blocks for rnn, gru, lstm.

The four dropouts are those of the AWD-LSTM (Merity et al. 2018, sections 2 and 3), and they share one idea: one mask for
a whole window (Gal and Ghahramani 2016). A mask drawn anew at each step would be noise on the memory itself, which the
recurrence adds up; one that stays is a smaller network, used for all of the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from duihua.models.recurrent_config import RecurrentConfig
from duihua.nn.embedding import Embedding
from duihua.nn.head_log_probabilities import head_log_probabilities
from duihua.nn.losses import cross_entropy_sum
from duihua.nn.products import Linear
from duihua.nn.recurrent import Gates, RecurrentLayer, State

States: TypeAlias = tuple[State, ...]
"""One state for each layer, the lowest first."""

READ_AT_ONCE = 256
"""Tokens of a text that `log_probabilities` reads between two looks at the logits: bounds memory, changes nothing else."""


def locked_dropout(x_btd: Tensor, share: float) -> Tensor:
    """Zero a `share` of the features, the same ones at every step of a row, and scale the rest up."""
    if not share:
        return x_btd
    mask_b1d = x_btd.new_empty(x_btd.shape[0], 1, x_btd.shape[2]).bernoulli_(1 - share).div_(1 - share)
    return x_btd * mask_b1d


class RecurrentLM(nn.Module):
    """Token ids (b, t) and states -> hidden vectors (b, t, d) and new states; `logits` and losses start from those."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        assert config.vocabulary_size > 0, "the vocabulary says its size before a network is made"
        self.config = config
        self.embedding = Embedding(config.vocabulary_size, config.width)
        self.layers = nn.ModuleList(
            RecurrentLayer(config.cell, inputs, width, config.forget_bias) for inputs, width in config.widths
        )
        self.head = Linear(config.widths[-1][1], config.vocabulary_size, bias=False)
        if config.tied_embeddings:
            self.head.weight = self.embedding.weight

    @torch.no_grad()
    def initialise(self, seed: int) -> RecurrentLM:
        """Fill the weights from a seed of their own. Returns self."""
        generator = torch.Generator().manual_seed(seed)
        bound = self.config.initial_range
        self.embedding.weight.uniform_(-bound, bound, generator=generator)
        if not self.config.tied_embeddings:
            self.head.weight.uniform_(-0.1, 0.1, generator=generator)
        for layer in self._layers():
            layer.initialise(generator)
        return self

    def start(self, batch: int) -> States:
        """The states before the first token."""
        return tuple(layer.start(batch) for layer in self._layers())

    def forward(
        self, token_ids_bt: Tensor, states: States | None = None, *, fused: bool = True
    ) -> tuple[Tensor, States]:
        """Hidden vectors (b, t, d) and the states after the last token. fused: see `RecurrentLayer.forward`."""
        config = self.config
        states = self.start(token_ids_bt.shape[0]) if states is None else states
        x_btd = self._embed(token_ids_bt)
        after: list[State] = []
        for number, (layer, state) in enumerate(zip(self._layers(), states, strict=True)):
            weight: Tensor = layer.recurrent_weight
            if self.training and config.weight_dropout:
                weight = F.dropout(weight, config.weight_dropout)
            x_btd, new_state = layer(x_btd, state, recurrent_weight=weight, fused=fused)
            after.append(new_state)
            if self.training:
                last = number == config.layers - 1
                x_btd = locked_dropout(x_btd, config.output_dropout if last else config.hidden_dropout)
        return x_btd, tuple(after)

    def hidden(self, token_ids_bt: Tensor) -> Tensor:
        """The hidden vectors (b, t, d) alone, from empty states: the name that a decoder has for them."""
        x_btd: Tensor = self(token_ids_bt)[0]
        return x_btd

    def gates(self, token_ids_bt: Tensor, states: States | None = None) -> list[Gates]:
        """What each layer's gates say at each step, each (b, t, e); see `RecurrentLayer.with_gates`. No dropout."""
        states = self.start(token_ids_bt.shape[0]) if states is None else states
        x_btd = self.embedding(token_ids_bt)
        said: list[Gates] = []
        for layer, state in zip(self._layers(), states, strict=True):
            x_btd, _, gates = layer.with_gates(x_btd, state)
            said.append(gates)
        return said

    def logits(self, hidden: Tensor) -> Tensor:
        """What `forward` gave, (..., d), as logits (..., v)."""
        logits: Tensor = self.head(hidden)
        return logits

    def next_token_losses(self, hidden: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted sum of the cross-entropies and the loss of each position: see `cross_entropy_sum`."""
        return cross_entropy_sum(hidden, self.head.weight, targets, weights)

    @torch.no_grad()
    def log_probabilities(self, ids: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Natural log-probability of each of ids[1:] given all before it: (n - 1,). A text begins with `config.end_id`.

        The state is carried from the first token to the last: the context is the whole text, there are no windows.
        """
        was_training = self.training
        self.eval()
        device = self.embedding.weight.device
        read = torch.as_tensor(np.asarray(ids, dtype=np.int64), device=device)[None]
        found: list[Tensor] = []
        states: States | None = None
        for start in range(0, read.shape[1] - 1, READ_AT_ONCE):
            window = read[:, start : start + READ_AT_ONCE + 1]
            hidden, states = self(window[:, :-1], states)
            found.append(head_log_probabilities(hidden[0], self.head.weight, window[0, 1:]).detach())
        self.train(was_training)
        joined = torch.cat(found).double().cpu().numpy() if found else np.zeros(0)
        return np.asarray(joined, dtype=np.float64)

    def _embed(self, token_ids_bt: Tensor) -> Tensor:
        x_btd: Tensor = self.embedding(token_ids_bt)
        if self.training:
            if share := self.config.embedding_dropout:  # a word that is dropped is dropped wherever it stands
                kept_v = x_btd.new_empty(self.config.vocabulary_size).bernoulli_(1 - share).div_(1 - share)
                x_btd = x_btd * kept_v[token_ids_bt].unsqueeze(-1)
            x_btd = locked_dropout(x_btd, self.config.input_dropout)
        return x_btd

    def _layers(self) -> list[RecurrentLayer]:
        return [layer for layer in self.layers if isinstance(layer, RecurrentLayer)]


def detached(states: States) -> States:
    """The same numbers without their past: where back-propagation through time is cut."""
    return tuple(tuple(part.detach() for part in state) for state in states)

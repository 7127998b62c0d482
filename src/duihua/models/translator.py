"""What every translator can do, so that training, beam search, evaluation and pictures need not know which one they have.

A translator reads the source once (`encode`), and then either scores a whole target in one pass (`forward`, for training:
teacher forcing) or writes it a token at a time (`start`, `step`). Both ways give the same numbers; tests hold them equal.

Why `start` takes a number of beams: the hypotheses of one sentence share what they read. The rows of a state stand in
groups, the beams of the first sentence, then those of the second, so that the source's keys and values are stored once a
sentence and not once a beam.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from duihua.errors import GenerationError
from duihua.models.recurrent_translator_config import RecurrentTranslatorConfig
from duihua.models.transformer_config import TransformerConfig

TranslatorConfig = TransformerConfig | RecurrentTranslatorConfig


@dataclass(frozen=True)
class Memory:
    """What the encoder read. states_bsd: a vector a source token. mask_bs: true for real tokens, false for pads.
    first: the decoder's first state, of recurrent networks: one tensor (layers, b, hidden), two for an LSTM."""

    states_bsd: Tensor
    mask_bs: Tensor
    first: tuple[Tensor, ...] = ()


class DecodingState(Protocol):
    """The decoder between two steps.

    rows: hypotheses, in groups of the beams of one sentence. attention_rs: the last step's weights over the source, (rows,
    s), the mean over the heads of the last layer; None unless `start` was asked to watch, or without attention.
    """

    @property
    def rows(self) -> int: ...
    @property
    def attention_rs(self) -> Tensor | None: ...

    def reorder(self, rows_r: Tensor) -> None:
        """Row i becomes what row rows_r[i] was. Groups may be dropped, and rows may change places and be repeated within
        their group; a hypothesis never moves to another sentence's group."""


class Translator(Protocol):
    """An encoder and a decoder over one joint vocabulary.

    Sources and targets are right-padded. Sources end with end_id; targets start with start_id. Masks are true (or 1) for
    real tokens. All raise GenerationError for more than config.most_tokens tokens.
    """

    training: bool

    @property
    def config(self) -> TransformerConfig | RecurrentTranslatorConfig: ...

    def encode(self, source_bs: Tensor, source_mask_bs: Tensor) -> Memory:
        """What the decoder reads."""

    def hidden(self, source_bs: Tensor, source_mask_bs: Tensor, target_bt: Tensor) -> Tensor:
        """The vectors before the output layer, (b, t, d), teacher forcing; pads of the target give numbers to be left out."""

    def logits(self, hidden: Tensor) -> Tensor:
        """What `hidden` gave, (..., d), as logits (..., v)."""

    def next_token_losses(
        self, hidden: Tensor, targets: Tensor, weights: Tensor, smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Weighted sum of the cross-entropies in nats, and the plain loss of each position (detached, 0 where the weight is
        0). smoothing: share of the target's probability that is spread over the vocabulary, in the sum alone."""

    def forward(self, source_bs: Tensor, source_mask_bs: Tensor, target_bt: Tensor) -> Tensor:
        """Logits (b, t, v) for the token after each position of the target."""

    def start(self, memory: Memory, beams: int = 1, watch: bool = False) -> DecodingState:
        """A state of b * beams rows that has read nothing yet. watch: keep each step's attention."""

    def step(self, ids_r: Tensor, state: DecodingState) -> Tensor:
        """Logits (rows, v) after one token more a row; equals `forward`'s last position."""

    def attention(self, source_bs: Tensor, source_mask_bs: Tensor, target_bt: Tensor) -> list[Tensor]:
        """Weights over the source, a tensor (b, heads, t, s) a layer, each row of which sums to 1; none without attention."""

    def initialise(self, seed: int) -> object:
        """Fill the weights from a seed of their own. Returns the network."""

    def train(self, mode: bool = True) -> object:
        """As of any torch module."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As of any torch module."""


def pad_rows(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Rows of ids as one right-padded tensor (b, longest), and its mask (b, longest), true for real tokens."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in rows], dtype=torch.long)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(longest) < lengths[:, None]
    return ids.to(device), mask.to(device)


def check_length(tokens: int, config: TranslatorConfig, side: str) -> None:
    """Raise GenerationError for a source or target (`side`) that is longer than the model reads."""
    if tokens > config.most_tokens:
        raise GenerationError(
            f"a {side} of {tokens} tokens is longer than the model's {config.most_tokens}",
            remedy="Split the text into sentences, or train a model with a larger most_tokens",
        )


def moved_rows(rows_r: Tensor, beams: int, before: int) -> tuple[Tensor | None, Tensor | None]:
    """What a reordering of `before` rows does: the sentences that stay (None: all of them) and the rows that do (None: every
    row stays where it is)."""
    count = rows_r.shape[0]
    here = torch.arange(count, device=rows_r.device)
    if count == before and bool((rows_r == here).all()):
        return None, None
    sentences = rows_r[::beams] // beams
    same_sentences = count == before and bool((sentences == here[: count // beams]).all())
    return None if same_sentences else sentences, rows_r

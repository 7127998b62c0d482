"""The scorer of the race: bits per byte of held-out documents, the same for every system.

The rule (that of `duihua.evaluation.bits_per_byte`, stated once more because the peers are scored in their own environment,
where nothing of Duihua is installed): the sequence <separator>, t1, ..., tn of each document is cut into windows of `context`
inputs that do not overlap; window w reads tokens w context ... (w + 1) context - 1 and predicts each one's successor. Every
token is predicted once, the first token of a later window from the one before it alone.

Three things are not believed but checked, because each has flattered a model before: the bytes of the predicted tokens, put
together, are the document; the network's answers are probabilities; and no answer depends on a later token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LogProbabilities = Callable[[Tensor], Tensor]
"""Token ids (b, t) -> natural logarithms (b, t, v) of the probability of each next token."""
Windows = Callable[[Sequence[int], int, int], list[list[int]]]


class ScoringError(Exception):
    """A score would not be that of the text."""


@dataclass(frozen=True)
class Score:
    """Sums over documents."""

    nats: float
    tokens: int
    bytes: int
    documents: int

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes


def windows_of(ids: Sequence[int], separator: int, context: int) -> list[list[int]]:
    """A document's token ids -> its windows: up to `context` inputs, and the last one's successor, each."""
    stream = [separator, *ids]
    return [stream[start : start + context + 1] for start in range(0, len(ids), context)]


def score(
    documents: Iterable[str],
    encode: Callable[[str], Sequence[int]],
    token_bytes: Callable[[int], bytes],
    separator: int,
    context: int,
    log_probabilities: LogProbabilities,
    rows: int = 16,
    windows: Windows = windows_of,
) -> Score:
    """Score documents with windows of `context` inputs, `rows` windows at once.

    Raises ScoringError where the predicted tokens are not the document's bytes, the answers no probabilities, or the network
    sees ahead.
    """
    waiting: list[list[int]] = []
    size = count = 0
    for text in documents:
        wanted = text.encode("utf-8")
        cut = windows(encode(text), separator, context)
        predicted = b"".join(token_bytes(token) for window in cut for token in window[1:])
        if predicted != wanted:
            raise ScoringError(f"document {count + 1}: {len(predicted)} bytes predicted of {len(wanted)}, or others")
        if any(not 2 <= len(window) <= context + 1 for window in cut):
            raise ScoringError(f"document {count + 1}: a window is longer than the training length {context}")
        waiting += cut
        size, count = size + len(wanted), count + 1
    if not waiting:
        raise ScoringError("there is no text to score")
    waiting.sort(key=len, reverse=True)
    _check(log_probabilities, waiting[0], separator)
    nats = sum(_nats(log_probabilities, waiting[at : at + rows], separator) for at in range(0, len(waiting), rows))
    return Score(nats, sum(len(window) - 1 for window in waiting), size, count)


@torch.no_grad()
def _nats(log_probabilities: LogProbabilities, windows: list[list[int]], filler: int) -> float:
    """Summed -ln p of all targets; shorter windows are filled up on the right, where nothing before it can see."""
    length = max(3, *map(len, windows))  # two inputs at least: some networks take no single token
    filled = torch.tensor([window + [filler] * (length - len(window)) for window in windows])
    real = torch.tensor([[place < len(window) for place in range(1, length)] for window in windows])
    found = log_probabilities(filled[:, :-1].contiguous()).gather(2, filled[:, 1:, None])[..., 0]
    return -float(found.double()[real].sum())


@torch.no_grad()
def _check(log_probabilities: LogProbabilities, window: list[int], other: int) -> None:
    """On one window: the probabilities sum to one, and the last input changes nothing before it."""
    ids = torch.tensor([window[:-1], [*window[:-2], other if window[-2] != other else window[0] + 1]])
    if ids.shape[1] < 2:
        return
    found = log_probabilities(ids)
    if float(found.double().logsumexp(dim=-1).abs().max()) > 1e-3:
        raise ScoringError("the network's answers are not logarithms of probabilities")
    if float((found[0, :-1] - found[1, :-1]).abs().max()) > 1e-3:
        raise ScoringError("what the network predicts depends on a later token")

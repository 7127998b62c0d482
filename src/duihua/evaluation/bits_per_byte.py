"""Bits per byte and perplexity of held-out documents: how well the model predicts text it has not seen.

Why bits per byte: perplexity depends on how the tokenizer cuts the text, bytes do not, so models with different
tokenizers can be compared. Why sums: the average of batch means weights a short last batch like a full one; here nats,
tokens and bytes are summed over all documents and divided once.

The rule, the same for every model that is compared:
- each document is scored from its own start and sees no other document;
- the sequence that is predicted is <|endoftext|>, t1, ..., tn: the document separator stands before the first token, so
  t1 is predicted too;
- it is cut into windows of `context` inputs that do not overlap. Window w reads tokens w*context ... (w+1)*context - 1
  and predicts each one's successor. So the first token of a later window is predicted from the token before it alone
  (the last target of the window before), and every token, hence every byte, counts exactly once;
- the end of the document is not scored: it has no bytes. Perplexity is over the same tokens: exp(nats / tokens);
- where the ids of a document do not give its bytes back (a foreign tokenizer may normalise the text first), there are no bits
  per byte: the bytes that were predicted are not those that would be divided by. Such documents are counted.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from duihua import console
from duihua.data.records import Document
from duihua.errors import DataError
from duihua.evaluation.next_token import predict

WINDOWS_AT_ONCE = 4096
"""Windows gathered before they are scored: bounds memory however large the held-out set."""


class TextTokenizer(Protocol):
    """What is needed of a tokenizer here."""

    @property
    def end_of_text_id(self) -> int: ...
    def encode_batch(self, texts: Sequence[str], /) -> Sequence[Sequence[int]]: ...
    def gives_back(self, text: str, ids: Sequence[int], /) -> bool: ...


@dataclass(frozen=True)
class TextScore:
    """Sums over documents: loss in nats, predicted tokens, UTF-8 bytes, documents. altered: those among them whose ids do not
    give their bytes back."""

    nats: float
    tokens: int
    bytes: int
    documents: int
    altered: int = 0

    @property
    def bits_per_byte(self) -> float | None:
        """nats / ln 2 / bytes; not-a-number where there is no text, None where a document was altered."""
        if self.altered:
            return None
        return self.nats / math.log(2) / self.bytes if self.bytes else math.nan

    @property
    def perplexity(self) -> float:
        """exp(nats / tokens): each token counts alike, whatever batch or document it stood in."""
        return math.exp(min(self.nats / self.tokens, 700.0)) if self.tokens else math.nan

    def __add__(self, other: TextScore) -> TextScore:
        return TextScore(
            self.nats + other.nats,
            self.tokens + other.tokens,
            self.bytes + other.bytes,
            self.documents + other.documents,
            self.altered + other.altered,
        )


def altered_line(altered: int, documents: int) -> str:
    """Why there are no bits per byte, for people."""
    return (
        f"no bits per byte: the ids of {altered:,} of {documents:,} texts do not say all of them (words do not say the spaces, "
        "unknown ones nothing, and some tokenizers change a text first)"
    )


def windows_of(ids: Sequence[int], separator: int, context: int) -> list[list[int]]:
    """A document's token ids -> its windows: `context` inputs, and the last one's successor, each."""
    stream = [separator, *ids]
    return [stream[start : start + context + 1] for start in range(0, len(ids), context)]


def bits_per_byte(
    network: nn.Module,
    tokenizer: TextTokenizer,
    documents: Iterable[Document],
    context: int,
    *,
    device: str | torch.device = "cpu",
) -> dict[str, TextScore]:
    """Score documents by the rule above: {"all": TextScore, <language>: TextScore, ...}.

    network: token ids (b, t) -> logits (b, t, v). context: inputs a window, the training length of the model. Empty
    documents have no bytes and are passed over; altered ones are told on the console. Raises DataError when there is no text at
    all.
    """
    if context < 1:
        raise ValueError(f"context must be at least 1, found {context}")
    scores: dict[str, TextScore] = defaultdict(lambda: TextScore(0.0, 0, 0, 0))
    waiting: list[tuple[str, list[int]]] = []

    def score_waiting() -> None:
        made_of_all = predict(network, [window for _, window in waiting], device)
        for (language, _), made in zip(waiting, made_of_all, strict=True):
            scores[language] += TextScore(float(made.nats.sum()), len(made.nats), 0, 0)
        waiting.clear()

    for document in documents:
        if not document.text:
            continue
        ids = tokenizer.encode_batch([document.text])[0]
        altered = int(not tokenizer.gives_back(document.text, ids))
        scores[document.language] += TextScore(0.0, 0, len(document.text.encode("utf-8")), 1, altered)
        waiting += [(document.language, window) for window in windows_of(ids, tokenizer.end_of_text_id, context)]
        if len(waiting) >= WINDOWS_AT_ONCE:
            score_waiting()
    score_waiting()
    if not scores:
        raise DataError(
            "no held-out text to score", where="bits per byte", remedy="Choose sources with a held-out part"
        )
    total = sum(scores.values(), TextScore(0.0, 0, 0, 0))
    if total.altered:
        console.warn(altered_line(total.altered, total.documents))
    return {"all": total, **{language: scores[language] for language in sorted(scores)}}

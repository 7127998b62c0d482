"""Perplexity and bits per byte of documents, by windows that slide, for any language model.

The rule (bits_per_byte.py is its case stride = context):
- a document is the sequence start, t1, ..., tn, start being the document separator, so that t1 is predicted too; documents
  see nothing of each other, and the end of a document is not scored, for it has no bytes;
- windows of at most `context` inputs begin every `stride` inputs. Each predicts its inputs' successors, and of those only the
  ones that no window before has predicted are counted: every token once;
- a window's first counted token is predicted from context - stride + 1 tokens, the rest from more: a small stride tells how
  well the model does with a full context and costs context / stride times as much. So context and stride stand beside every
  number, and numbers with others must not be compared.

Why sums: the perplexity is exp(all nats / all tokens). The mean over batches of each batch's mean weights a batch with one
token like one with twenty: 20 tokens of 2 nats and 1 token of 6 nats have perplexity exp(46 / 21) = 8.94, while the mean of the
two means gives exp(4) = 54.6. Why bits per byte beside it: perplexity depends on how the tokenizer cuts, bytes do not. Why an
interval over documents: tokens of one document are not independent.

From: the sliding window of transformers' documentation ("Perplexity of fixed-length models"), whose number differs in two
details: it never scores the first token, and its mean weights the windows by one token too few each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duihua.data.records import Document
from duihua.errors import ConfigError, DataError
from duihua.evaluation.intervals import Interval
from duihua.evaluation.language_model import LanguageModel
from duihua.evaluation.significance import Rows, as_rows, bootstrap_interval

WINDOWS_AT_ONCE = 256
"""Windows that are scored between two signs of life."""


@dataclass(frozen=True)
class Window:
    """Inputs begin ... end - 1 of a sequence; of the tokens that they predict, `counted`, the last ones, are counted."""

    begin: int
    end: int
    counted: int


@dataclass(frozen=True)
class DocumentScore:
    """Sums over one document. right: likeliest tokens that were the true ones, -1 where the model does not say. whole:
    whether its ids say all of its text."""

    nats: float
    tokens: int
    bytes: int
    unknown: int
    right: int
    whole: bool
    language: str
    source: str


@dataclass(frozen=True)
class TextFigures:
    """What a set of documents came to. bits_per_byte: None where the ids of a document do not say all of its text (words,
    unknown characters, a tokenizer that normalises): what they leave out was not predicted. altered: such documents."""

    perplexity: Interval
    bits_per_byte: Interval | None
    accuracy: Interval | None
    tokens: int
    bytes: int
    documents: int
    unknown: int
    altered: int

    def to_dict(self) -> dict[str, Any]:
        """As it stands in JSON."""
        return {
            "perplexity": self.perplexity.to_dict(),
            "bits_per_byte": None if self.bits_per_byte is None else self.bits_per_byte.to_dict(),
            "tokens": self.tokens,
            "bytes": self.bytes,
            "documents": self.documents,
            "unknown_tokens": self.unknown,
            "altered_documents": self.altered,
        }


def sliding_windows(inputs: int, context: int, stride: int) -> list[Window]:
    """Windows over a sequence of `inputs` inputs (and as many tokens to predict), each token counted once."""
    windows: list[Window] = []
    counted_to = 0
    for begin in range(0, inputs, stride):
        end = min(begin + context, inputs)
        windows.append(Window(begin, end, end - counted_to))
        counted_to = end
        if end == inputs:
            break
    return windows


def resolve(model: LanguageModel, context: int | None, stride: int | None) -> tuple[int | None, int | None]:
    """The context and stride that are used: by default the model's context, and windows that do not overlap.

    None, None for a model without a bound: whole documents. Raises ConfigError for impossible ones.
    """
    known = model.context
    if context is not None and (context < 1 or (known is not None and context > known)):
        limit = "" if known is None else f" and at most the model's {known}"
        raise ConfigError(
            f"must be at least 1{limit}, found {context}",
            where="--context",
            remedy="Leave --context out for " + ("the model's own" if known else "whole documents"),
        )
    chosen = context if context is not None else known
    if chosen is None:
        if stride is not None:
            raise ConfigError(
                "this model reads whole documents, it has no windows", where="--stride", remedy="Leave --stride out"
            )
        return None, None
    if stride is not None and not 1 <= stride <= chosen:
        raise ConfigError(
            f"must be 1 to the context of {chosen}, found {stride}",
            where="--stride",
            remedy="Leave --stride out for windows that do not overlap",
        )
    return chosen, stride if stride is not None else chosen


def score_documents(
    model: LanguageModel,
    documents: Iterable[Document],
    context: int | None = None,
    stride: int | None = None,
    advance: Callable[[int], None] = lambda documents: None,
) -> list[DocumentScore]:
    """Score each document that has text, in order. advance: told how many more are done."""
    context, stride = resolve(model, context, stride)
    scores: list[DocumentScore] = []
    waiting: list[tuple[Document, list[int], list[Window]]] = []  # document, ids, windows
    sequences: list[list[int]] = []

    def score_waiting() -> None:
        last = [window.counted for _, _, windows in waiting for window in windows]
        made = iter(model.predict(sequences, last))
        for document, ids, windows in waiting:
            parts = [next(made) for _ in windows]
            says = all(len(part.right) == len(part.nats) for part in parts)
            scores.append(
                DocumentScore(
                    nats=float(sum(part.nats.sum() for part in parts)),
                    tokens=len(ids),
                    bytes=len(document.text.encode("utf-8", "surrogatepass")),
                    unknown=model.unknown(ids),
                    right=int(sum(part.right.sum() for part in parts)) if says else -1,
                    whole=model.whole(document.text, ids),
                    language=document.language,
                    source=document.source,
                )
            )
        advance(len(waiting))
        waiting.clear()
        sequences.clear()

    for document in documents:
        ids = model.encode([document.text])[0]
        if not ids:
            continue
        stream = [model.start_id, *ids]
        windows = sliding_windows(len(ids), context or len(ids), stride or len(ids))
        sequences += [stream[window.begin : window.end + 1] for window in windows]
        waiting.append((document, ids, windows))
        if len(sequences) >= WINDOWS_AT_ONCE:
            score_waiting()
    if waiting:
        score_waiting()
    if not scores:
        raise DataError("there is no text to score", where="perplexity", remedy="Give files or sources with text")
    return scores


def figures(scores: Sequence[DocumentScore], *, rounds: int = 1000, seed: int = 0) -> dict[str, TextFigures]:
    """{"all": TextFigures, <language>: TextFigures, ...}: sums over the documents of each language, with intervals."""
    languages = sorted({score.language for score in scores})
    parts = {"all": list(scores), **{name: [s for s in scores if s.language == name] for name in languages}}
    return {name: _figures(part, rounds, seed) for name, part in parts.items()}


def _figures(scores: Sequence[DocumentScore], rounds: int, seed: int) -> TextFigures:
    rows = document_rows(scores)
    altered = sum(not score.whole for score in scores)
    says = all(score.right >= 0 for score in scores)
    return TextFigures(
        perplexity=bootstrap_interval(rows, perplexity, rounds=rounds, seed=seed),
        bits_per_byte=bootstrap_interval(rows, bits_per_byte, rounds=rounds, seed=seed) if not altered else None,
        accuracy=bootstrap_interval(rows, accuracy, rounds=rounds, seed=seed) if says else None,
        tokens=sum(score.tokens for score in scores),
        bytes=sum(score.bytes for score in scores),
        documents=len(scores),
        unknown=sum(score.unknown for score in scores),
        altered=altered,
    )


def document_rows(scores: Sequence[DocumentScore]) -> Rows:
    """(documents, 4): nats, tokens, bytes, right tokens, for resampling."""
    return as_rows(
        [score.nats for score in scores],
        [score.tokens for score in scores],
        [score.bytes for score in scores],
        [score.right for score in scores],
    )


def perplexity(sums: NDArray[np.float64]) -> float:
    """exp(nats / tokens) out of the sum of `document_rows`."""
    return math.exp(min(sums[0] / sums[1], 700.0)) if sums[1] else math.nan


def bits_per_byte(sums: NDArray[np.float64]) -> float:
    """nats / ln 2 / bytes out of the sum of `document_rows`."""
    return float(sums[0] / math.log(2) / sums[2]) if sums[2] else math.nan


def accuracy(sums: NDArray[np.float64]) -> float:
    """Right tokens / tokens out of the sum of `document_rows`."""
    return float(sums[3] / sums[1]) if sums[1] else math.nan

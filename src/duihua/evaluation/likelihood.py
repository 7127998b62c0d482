"""How likely is this continuation after that context? The question that multiple-choice tasks are made of.

The rule of EleutherAI's lm-evaluation-harness, so that figures can be set beside published ones:
- spaces at the end of the context belong to the continuation (words of byte-level vocabularies begin with their space);
- context and continuation are encoded together, and the continuation's ids are those behind as many ids as the context has
  alone. Encoding the two apart would give other ids wherever the vocabulary has a token across the border;
- an empty context is the document separator;
- what is longer than the model's context + 1 loses ids at its front.

One row of a batch is context and continuation, rows of about the same length together; the head is computed for the
continuation alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from duihua.evaluation.language_model import LanguageModel

ROWS_AT_ONCE = 64
"""Rows that are scored between two signs of life."""

Request = tuple[str, str]
"""(context, continuation)"""


@dataclass(frozen=True)
class Likelihood:
    """log_likelihood: natural log, summed over the continuation's tokens. greedy: whether every one of them was the
    likeliest; None where the model does not say. cut: ids that the front of the context lost."""

    log_likelihood: float
    greedy: bool | None
    tokens: int
    cut: int


def encode_pair(model: LanguageModel, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Ids of context and continuation by the rule above."""
    return _encode_pairs(model, [(context, continuation)])[0]


def _encode_pairs(model: LanguageModel, requests: Sequence[Request]) -> list[tuple[list[int], list[int]]]:
    fronts = list(dict.fromkeys(context.rstrip() for context, _ in requests))  # the options of a question share theirs
    front_ids = dict(zip(fronts, model.encode(fronts), strict=True))
    wholes = model.encode([context + continuation for context, continuation in requests])
    pairs = []
    for (context, _), ids in zip(requests, wholes, strict=True):
        front = front_ids[context.rstrip()]
        pairs.append((front or [model.start_id], ids[len(front) :]))
    return pairs


def likelihoods(
    model: LanguageModel,
    requests: Sequence[Request],
    *,
    separator: bool = False,
    advance: Callable[[int], None] = lambda requests: None,
) -> list[Likelihood]:
    """Score each request, in order. separator: put the document separator before every context, as documents had it in
    training (the harness does not). advance: told how many more requests are done."""
    results: list[Likelihood | None] = [None] * len(requests)
    waiting: list[tuple[int, list[int], int, int]] = []  # request, ids, tokens of the continuation, cut
    for index, (front, continuation) in enumerate(_encode_pairs(model, requests)):
        if not continuation:
            results[index] = Likelihood(0.0, True, 0, 0)
            advance(1)
            continue
        ids = [*front, *continuation]
        if separator and front != [model.start_id]:
            ids = [model.start_id, *ids]
        cut = 0 if model.context is None else max(0, len(ids) - model.context - 1)
        waiting.append((index, ids[cut:], min(len(continuation), len(ids) - cut - 1), cut))
    waiting.sort(key=lambda each: (len(each[1]), each[1]))
    while waiting:
        some = waiting[-ROWS_AT_ONCE:]
        del waiting[-ROWS_AT_ONCE:]
        made = model.predict([ids for _, ids, _, _ in some], [tokens for _, _, tokens, _ in some])
        for (index, _, tokens, cut), part in zip(some, made, strict=True):
            says = len(part.right) == len(part.nats)
            greedy = bool(part.right.all()) if says else None
            results[index] = Likelihood(-float(part.nats.sum()), greedy, tokens, cut)
        advance(len(some))
    return [result for result in results if result is not None]

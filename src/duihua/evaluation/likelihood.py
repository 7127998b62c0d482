"""How likely is this continuation after that context? The question that multiple-choice tasks are made of.

The rule of EleutherAI's lm-evaluation-harness, so that figures can be set beside published ones:
- spaces at the end of the context belong to the continuation (words of byte-level vocabularies begin with their space);
- context and continuation are encoded together, and the continuation's ids are those behind as many ids as the context has
  alone. Encoding the two apart would give other ids wherever the vocabulary has a token across the border;
- an empty context is the document separator;
- what is longer than the model's context + 1 loses ids at its front.

Where a token lies across the border, as where 今天天 + 气 ends in the one token 天气, the harness's cut is none: behind as many
ids as 今天天 has alone stands too little or nothing (an answer of no ids would be certain, and win). There the border moves
back to the first id in which the whole differs from the context alone, and all that stands behind it is scored. It moves for
every continuation of that context alike, to the leftmost place that one of them needs: an answer that is cut otherwise must
not be given for nothing what another pays for. So the difference between two answers is always that of the whole texts,
log P(context + a) - log P(context + b), and where no token lies across, each number is the harness's.

One row of a batch is context and continuation, rows of about the same length together; the head is computed for the
continuation alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from duihua.evaluation.language_model import LanguageModel

ROWS_AT_ONCE = 64
"""Rows that are scored between two signs of life."""

Request = tuple[str, str]
"""(context, continuation)"""


@dataclass(frozen=True)
class Likelihood:
    """log_likelihood: natural log, summed over the continuation's tokens. greedy: whether every one of them was the
    likeliest; None where the model does not say. cut: ids that the front of the context lost. moved: ids of the context that
    are scored too, because a token lies across the border."""

    log_likelihood: float
    greedy: bool | None
    tokens: int
    cut: int
    moved: int = 0


@dataclass(frozen=True)
class EncodedPair:
    """front: ids of the context that are read. continuation: ids that are scored. moved: as in `Likelihood`."""

    front: list[int]
    continuation: list[int]
    moved: int


def encode_pairs(model: LanguageModel, requests: Sequence[Request]) -> list[EncodedPair]:
    """Ids of contexts and continuations by the rule above; continuations of the same context have the same border."""
    contexts = [context.rstrip() for context, _ in requests]
    said = [context + continuation for context, continuation in requests]
    alone = list(dict.fromkeys(contexts))  # the options of a question share theirs
    ids_of = dict(zip(alone, model.encode(alone), strict=True))
    wholes = model.encode(said)
    border = {context: len(ids) for context, ids in ids_of.items()}
    for context, text, whole in zip(contexts, said, wholes, strict=True):
        if text != context:
            border[context] = max(0, min(border[context], _shared(ids_of[context], whole), len(whole) - 1))
    pairs = []
    for context, text, whole in zip(contexts, said, wholes, strict=True):
        ids, place = ids_of[context], border[context]
        if text == context:
            pairs.append(EncodedPair(ids or [model.start_id], [], 0))
        else:
            pairs.append(EncodedPair(whole[:place] or [model.start_id], whole[place:], len(ids) - place))
    return pairs


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """With how many equal ids both begin."""
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(first, second, strict=False)))


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
    waiting: list[tuple[int, list[int], Likelihood]] = []  # request, ids, what is known of its result
    for index, pair in enumerate(encode_pairs(model, requests)):
        if not pair.continuation:
            results[index] = Likelihood(0.0, True, 0, 0)
            advance(1)
            continue
        ids = [*pair.front, *pair.continuation]
        if separator and pair.front != [model.start_id]:
            ids = [model.start_id, *ids]
        cut = 0 if model.context is None else max(0, len(ids) - model.context - 1)
        tokens = min(len(pair.continuation), len(ids) - cut - 1)
        waiting.append((index, ids[cut:], Likelihood(0.0, None, tokens, cut, pair.moved)))
    waiting.sort(key=lambda each: (len(each[1]), each[1]))
    while waiting:
        some = waiting[-ROWS_AT_ONCE:]
        del waiting[-ROWS_AT_ONCE:]
        made = model.predict([ids for _, ids, _ in some], [known.tokens for _, _, known in some])
        for (index, _, known), part in zip(some, made, strict=True):
            says = len(part.right) == len(part.nats)
            greedy = bool(part.right.all()) if says else None
            results[index] = replace(known, log_likelihood=-float(part.nats.sum()), greedy=greedy)
        advance(len(some))
    return [result for result in results if result is not None]

"""Perplexity of sentences, one a line, the way language models were measured on the Penn Treebank.

Each sentence ends with one more token, which is predicted and counted like a word, and a file is one stream: a recurrent
network carries its state from sentence to sentence, a decoder's windows slide over all of it. n-grams are counted within
sentences, so each sentence is theirs from its own start. Nats are kept sentence by sentence, for intervals and comparisons;
the interval takes sentences for independent, which within one text they are only roughly.

Why beside `perplexity.py`: there a document begins from nothing and its end is not scored. On the same file the two rules give
numbers that must not be compared.

From: T. Mikolov et al., "Recurrent neural network based language model", Interspeech 2010, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from duihua.data.records import Document, detect_language
from duihua.errors import DataError
from duihua.evaluation.language_model import LanguageModel
from duihua.evaluation.perplexity import WINDOWS_AT_ONCE, DocumentScore, resolve, sliding_windows


def score_sentences(
    model: LanguageModel,
    files: Sequence[Document],
    context: int | None = None,
    stride: int | None = None,
    advance: Callable[[int], None] = lambda files: None,
) -> list[DocumentScore]:
    """A score for each line that is not blank, in order; its bytes include the line's end. advance: told of each file."""
    context, stride = resolve(model, context, stride)
    scores: list[DocumentScore] = []
    for file in files:
        lines = [line for line in file.text.split("\n") if line.strip()]
        encoded = model.encode(lines)
        sentences = [[*ids, model.start_id] for ids in encoded]
        streams = [[id for sentence in sentences for id in sentence]] if model.carries else sentences
        nats, right = _read(model, streams, context, stride)
        language, place = detect_language(file.text), 0
        for line, ids, sentence in zip(lines, encoded, sentences, strict=True):
            part = slice(place, place := place + len(sentence))
            scores.append(
                DocumentScore(
                    nats=float(nats[part].sum()),
                    tokens=len(sentence),
                    bytes=len(line.encode("utf-8", "surrogatepass")) + 1,
                    unknown=model.unknown(ids),
                    right=-1 if right is None else int(right[part].sum()),
                    whole=model.whole(line, ids),
                    language=language,
                    source=file.source,
                )
            )
        advance(1)
    if not scores:
        raise DataError(
            "there is no sentence to score", where="perplexity", remedy="Give files with one sentence a line"
        )
    return scores


def _read(
    model: LanguageModel, streams: Sequence[Sequence[int]], context: int | None, stride: int | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Nats of every token of the streams, one behind the other, and whether it was the likeliest (None: not said)."""
    sequences, counted = [], []
    for stream in streams:
        whole = [model.start_id, *stream]
        for window in sliding_windows(len(stream), context or len(stream), stride or len(stream)):
            sequences.append(whole[window.begin : window.end + 1])
            counted.append(window.counted)
    made = [
        part
        for begin in range(0, len(sequences), WINDOWS_AT_ONCE)
        for part in model.predict(sequences[begin : begin + WINDOWS_AT_ONCE], counted[begin : begin + WINDOWS_AT_ONCE])
    ]
    if not made:
        return np.zeros(0), None
    says = all(len(part.right) == len(part.nats) for part in made)
    return (
        np.concatenate([part.nats for part in made]),
        np.concatenate([part.right for part in made]) if says else None,
    )

"""Counted language models on the corpora of recurrent ones, by the same rule, so that one table can hold all of them.

The rule is the Penn Treebank's (data/word_corpus.py): every token of the test part is predicted, ends of sentences included,
and the perplexity is exp(nats / tokens). An n-gram model sees no further than its sentence, a recurrent network all before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from duihua.data.word_corpus import PARTS, Part, WordCorpus
from duihua.evaluation.stream_loss import StreamLoss
from duihua.models.counts.ngram import NGram, Smoothing

TREEBANK_PERPLEXITIES: Mapping[str, float] = MappingProxyType({"unigram": 639.3, "bigram": 186.8})
"""Of the original test file: relative frequencies, and interpolated Kneser-Ney of order 2."""
COUNTED: Mapping[str, tuple[int, Smoothing]] = MappingProxyType(
    {"unigram": (1, "none"), "bigram": (2, "kneser-ney"), "5-gram": (5, "kneser-ney")}
)
"""Name -> (order, smoothing)."""


def counted_losses(corpus: WordCorpus, name: str) -> tuple[dict[Part, StreamLoss], int]:
    """The losses of a model of `COUNTED` on the three parts, and how many n-grams it stores."""
    order, smoothing = COUNTED[name]
    end = corpus.vocabulary.end_of_text_id
    model = NGram.fit(
        (each.tolist() for each in sentences_of(corpus.ids["train"], end)),
        order,
        corpus.vocabulary.vocabulary_size,
        end,
        smoothing=smoothing,
    )
    found: dict[Part, StreamLoss] = {}
    for part in PARTS:
        nats = sum(
            -float(model.log_probabilities(np.concatenate(([end], sentence))).sum())
            for sentence in sentences_of(corpus.ids[part], end)
        )
        found[part] = StreamLoss(nats, len(corpus.ids[part]))
    return found, sum(len(each.codes) for each in model.orders)


def sentences_of(ids: npt.NDArray[np.int64], end: int) -> Iterator[npt.NDArray[np.int64]]:
    """A stream of ids as its sentences, each with the end token behind it."""
    start = 0
    for place in np.flatnonzero(ids == end):
        yield ids[start : int(place) + 1]
        start = int(place) + 1
    if start < len(ids):
        yield ids[start:]

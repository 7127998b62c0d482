"""Bags of words: a text as the counts of its words, or as TF-IDF weights, and the texts nearest to a query.

A bag forgets order: "the dog bites the man" and "the man bites the dog" are one vector, exactly. Topic survives that and
meaning often does not, which is what every later model of this project is about.

    tf-idf(t, d) = count(t, d) * idf(t),   idf(t) = ln((1 + n) / (1 + df(t))) + 1,   each text's vector of length 1

n texts were counted, df(t) of them hold t. The ones inside the fraction stand for a text that holds every word once (the
smooth idf of scikit-learn, so that its figures come out here too); the one outside keeps words that all texts hold.
From: K. Spärck Jones, "A statistical interpretation of term specificity and its application in retrieval", 1972; G. Salton,
C. Buckley, "Term-weighting approaches in automatic text retrieval", 1988.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from duihua.errors import DataError
from duihua.text.vocabulary import END_ID
from duihua.text.words import WordVocabulary

Floats = npt.NDArray[np.float64]
FIRST_WORD_ID = END_ID + 1
"""The id of column 0: the control ids have none, and unknown words are dropped."""


class BagOfWords:
    """Texts to vectors, one column a word of the vocabulary. idf: (words,) for TF-IDF, None for counts."""

    def __init__(self, vocabulary: WordVocabulary, idf: Floats | None = None) -> None:
        self.vocabulary, self.idf = vocabulary, idf

    @classmethod
    def fit(cls, vocabulary: WordVocabulary, texts: Iterable[str]) -> BagOfWords:
        """TF-IDF with the document frequencies of `texts`. Raises DataError where there is none."""
        counts = cls(vocabulary).vectors(texts)
        documents = counts.shape[0]
        if not documents:
            raise DataError("there is no text to count words in", where="bag of words", remedy="Give some texts")
        frequencies = np.bincount(counts.indices, minlength=counts.shape[1])
        return cls(vocabulary, np.log((1 + documents) / (1 + frequencies)) + 1)

    @property
    def columns(self) -> int:
        """Length of a vector."""
        return len(self.vocabulary.words)

    def vectors(self, texts: Iterable[str]) -> Any:
        """(texts, words) in compressed sparse rows (scipy), sorted columns, float64: counts, or TF-IDF of length 1 (0 for a
        text without known words)."""
        encoded = [self.vocabulary.encode(text) for text in texts]
        lengths = [len(ids) for ids in encoded]
        column = np.fromiter(chain.from_iterable(encoded), dtype=np.int64, count=sum(lengths)) - FIRST_WORD_ID
        row = np.repeat(np.arange(len(encoded)), lengths)
        known = column >= 0
        place, count = np.unique(row[known] * self.columns + column[known], return_counts=True)
        starts = np.searchsorted(place, np.arange(len(encoded) + 1) * self.columns)
        weights = count.astype(np.float64)
        columns = place % self.columns if self.columns else place
        if self.idf is not None:
            weights *= self.idf[columns]
            rows = np.repeat(np.arange(len(encoded)), np.diff(starts))
            weights /= np.sqrt(np.bincount(rows, weights=weights * weights))[rows]
        return csr_array((weights, columns, starts), shape=(len(encoded), self.columns))


@dataclass(frozen=True)
class Hit:
    """A text that was found: its number in the collection, from 0, and its cosine with the query, 0 to 1."""

    number: int
    score: float


class Collection:
    """Texts to be searched by the cosine between their vectors and the query's."""

    def __init__(self, bag: BagOfWords, texts: Sequence[str]) -> None:
        self.bag = bag
        self._vectors = _unit(bag.vectors(texts))

    def search(self, query: str, k: int = 5) -> list[Hit]:
        """The `k` texts that are most like `query`, best first; of equals the earlier one. Texts without a word in common
        are not found."""
        scores: Floats = (self._vectors @ _unit(self.bag.vectors([query])).toarray()[0]).astype(np.float64)
        best = np.argsort(-scores, kind="stable")[:k]
        return [Hit(int(number), float(min(scores[number], 1.0))) for number in best if scores[number] > 0]


def _unit(vectors: Any) -> Any:
    """Rows divided by their lengths; zero rows stay."""
    lengths = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
    scale = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return csr_array(
        (vectors.data * np.repeat(scale, np.diff(vectors.indptr)), vectors.indices, vectors.indptr), shape=vectors.shape
    )

"""First weights of embedding and head from counted bigrams, so that training begins where counting ends.

A decoder whose blocks write nothing yet (`zero_output`) is a model of bigrams: head(norm(embedding[x])) are the logits of what
follows token x. Stochastic gradients spend the first hundreds of small steps on learning just that, while counting the whole
text takes a second. So the two matrices are made of the counts: log(p(y|x) / p(y)), smoothed, is approximated by a product of
rank width - 1, as word vectors are found by factorising such a matrix (Levy and Goldberg 2014, section 3), and one further
dimension, in which all tokens agree, carries log p(y).

- p(y|x) is smoothed towards p(y) as if each context had been seen `smoothing` times more with what is usual. Then the matrix
  is log(1 + c(x, y) / (smoothing p(y))) and a number for each row, which the softmax does not see: it is sparse, and the
  factors take seconds for any vocabulary.
- The errors are weighted by p(x) p(y), which makes them those of the expected log-probability to second order; a weighted
  factorisation of this kind is an ordinary one of the matrix times the roots of the weights. It is found by random projection
  (Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1).
- The norm before the head takes the length from the embedding's rows, which says how much a token knows of its follower. So the
  common dimension is as long as makes all rows equally long.
- A random rotation spreads all over the dimensions, as random weights are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray

from duihua.models.decoder import Decoder

Array = NDArray[Any]

MOST_TOKENS = 16_000_000
"""Counted at most; more change nothing that a low rank could keep."""
SLICES = 64
"""Places of a longer text that are counted, evenly spread."""
DEVIATION = 0.8
"""Root mean square of the embedding, that of `zero_output`."""
DRAWN = 2048
"""Pairs that the expected loss is taken from."""
_ROOM = 16
"""Directions more than wanted in the random projection."""
_LEAST_COMMON = 0.2
"""Share of a row's length that the common dimension has at least."""
_LENGTH = 2.0
"""Rows' length, in mean lengths of the rows without the common dimension."""


@dataclass(frozen=True)
class Bigrams:
    """How often (weighted) each pair of neighbours occurs that occurs at all."""

    vocabulary_size: int
    left: Array
    right: Array
    counts: Array

    def shares(self, side: Array) -> Array:
        """Of each token of the vocabulary, its share of `left` or `right`."""
        return np.bincount(side, self.counts, minlength=self.vocabulary_size) / max(float(self.counts.sum()), 1.0)


def count_bigrams(parts: Sequence[tuple[Array, float]], vocabulary_size: int, most: int = MOST_TOKENS) -> Bigrams:
    """Of texts as arrays of ids, each with its weight. Of more than `most` ids evenly spread slices are counted."""
    total = sum(len(ids) for ids, _ in parts)
    share = min(1.0, most / max(1, total))
    keys: list[Array] = [np.empty(0, dtype=np.int64)]
    counts: list[Array] = [np.empty(0)]
    for ids, weight in parts:
        for piece in _slices(ids, share):
            found, often = np.unique(piece[:-1].astype(np.int64) * vocabulary_size + piece[1:], return_counts=True)
            keys.append(found)
            counts.append(often * weight)
    every, place = np.unique(np.concatenate(keys), return_inverse=True)
    summed = np.bincount(place, np.concatenate(counts), minlength=len(every))
    left, right = np.divmod(every, vocabulary_size)
    return Bigrams(vocabulary_size, left, right, summed)


def _slices(ids: Array, share: float) -> list[Array]:
    """The ids, or `share` of them in SLICES places."""
    if share >= 1 or len(ids) < SLICES * 2:
        return [np.asarray(ids)]
    step = len(ids) // SLICES
    return [np.asarray(ids[start : start + max(2, int(step * share))]) for start in range(0, SLICES * step, step)]


def factors(bigrams: Bigrams, rank: int, smoothing: float, seed: int) -> tuple[Array, Array, Array]:
    """(e, h, log p): e[x] @ h[y] + log p[y] approximates log p(y|x) but for a number of each x. (v, rank), (v, rank), (v,)."""
    size, random = bigrams.vocabulary_size, np.random.default_rng(seed)
    p_left = np.maximum(bigrams.shares(bigrams.left), 1e-8)
    p_right = np.maximum(bigrams.shares(bigrams.right), 1e-9)
    by_left, by_right = np.sqrt(p_left).astype(np.float32), np.sqrt(p_right).astype(np.float32)
    values = np.log1p(bigrams.counts / (smoothing * p_right[bigrams.right])).astype(np.float32)
    mean_left = np.bincount(bigrams.left, values * p_right[bigrams.right], minlength=size).astype(np.float32)
    weighted = values * by_left[bigrams.left] * by_right[bigrams.right]
    matrix = scipy.sparse.csr_matrix((weighted, (bigrams.left, bigrams.right)), shape=(size, size))
    turned = matrix.T.tocsr()
    # Each row's mean is taken away: the softmax does not see it.
    centre = by_left * mean_left / float((by_right**2).sum())

    def times(block: Array) -> Array:
        found: Array = matrix @ block - np.outer(centre, by_right @ block)
        return found

    def turned_times(block: Array) -> Array:
        found: Array = turned @ block - np.outer(by_right, centre @ block)
        return found

    basis = np.linalg.qr(times(random.standard_normal((size, min(size, rank + _ROOM)), dtype=np.float32)))[0]
    basis = np.linalg.qr(turned_times(basis))[0]
    basis = np.linalg.qr(times(basis))[0]
    inner, strengths, right = np.linalg.svd(turned_times(basis).T, full_matrices=False)
    roots = np.sqrt(strengths[:rank])
    embedding = (basis @ inner)[:, :rank] * roots / by_left[:, None]
    head = right[:rank].T * roots / by_right[:, None]
    return embedding, head, np.log(p_right).astype(np.float32)


def start_from_bigrams(network: Decoder, bigrams: Bigrams, *, smoothing: float, seed: int) -> float:
    """Write embedding and head of a decoder that was just initialised; give the loss that training should begin at, in nats.
    ConfigError where its shape does not go with it."""
    config = network.config
    config.check_bigram_start()
    rank = min(config.width, config.vocabulary_size) - 1
    embedding, head, log_p = (torch.from_numpy(each).float() for each in factors(bigrams, rank, smoothing, seed))
    p_left = torch.from_numpy(bigrams.shares(bigrams.left)).float()
    lengths = embedding.norm(dim=1)
    length = _LENGTH * float(p_left @ lengths) or 1.0
    common = (length**2 - lengths**2).clamp_min((_LEAST_COMMON * length) ** 2).sqrt()
    rows = torch.nn.functional.normalize(torch.cat([common[:, None], embedding], 1), dim=1)
    mean_common = float(p_left @ rows[:, 0]) * length or 1.0
    columns = torch.cat([(log_p / mean_common)[:, None], head], 1) * (length / config.width**0.5)
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(config.width, config.width, generator=generator))[0][: rows.shape[1]]
    with torch.no_grad():
        network.embedding.weight.copy_(rows @ rotation * (config.width**0.5 * DEVIATION))
        network.head.weight.copy_(columns @ rotation)
    return expected_loss(network, bigrams, seed)


def expected_loss(network: Decoder, bigrams: Bigrams, seed: int) -> float:
    """Nats a token of the counted text under embedding, norm and head alone, over tokens drawn from it."""
    random = np.random.default_rng(seed)
    chosen = random.choice(len(bigrams.counts), DRAWN, p=bigrams.counts / bigrams.counts.sum())
    left, right = torch.from_numpy(bigrams.left[chosen]), torch.from_numpy(bigrams.right[chosen])
    with torch.no_grad():
        logits = network.logits(network.final_norm(network.embedding(left)))
        return float(torch.nn.functional.cross_entropy(logits.float(), right))

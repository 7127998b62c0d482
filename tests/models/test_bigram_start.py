"""Embedding and head made of counted bigrams begin where counting ends."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from duihua.errors import ConfigError
from duihua.models.bigram_start import Bigrams, count_bigrams, expected_loss, factors, start_from_bigrams
from duihua.models.config import DecoderConfig
from duihua.models.decoder import Decoder

VOCABULARY = 60
CONFIG = DecoderConfig(
    vocabulary_size=VOCABULARY,
    width=24,
    layers=2,
    heads=2,
    key_value_heads=1,
    head_width=8,
    feed_forward_width=32,
    context=32,
)


def chain(seed: int, length: int = 60_000) -> tuple[np.ndarray, float]:
    """A text in which the next token depends on the last one, by a table of low rank, and its entropy in nats a token."""
    random = np.random.default_rng(seed)
    logits = random.standard_normal((VOCABULARY, 4)) @ random.standard_normal((4, VOCABULARY))
    table = np.exp(logits + np.linspace(2, -2, VOCABULARY))
    table /= table.sum(1, keepdims=True)
    ids = np.zeros(length, dtype=np.uint16)
    sums, draws = np.cumsum(table, 1), random.random(length)
    for place in range(1, length):
        ids[place] = min(int(np.searchsorted(sums[ids[place - 1]], draws[place])), VOCABULARY - 1)
    entropies = -(table * np.log(table)).sum(1)
    return ids, float(entropies[ids].mean())


def loss_on(network: Decoder, ids: np.ndarray) -> float:
    rows = torch.from_numpy(ids[:2048].astype(np.int64)).view(-1, 32)
    with torch.no_grad():
        logits = network(rows)
    return float(torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten()))


def test_counts_are_those_of_neighbours_and_weights_multiply_them() -> None:
    found = count_bigrams([(np.array([1, 2, 1, 2, 3]), 1.0), (np.array([1, 2]), 0.5)], 5)
    pairs = dict(zip(zip(found.left.tolist(), found.right.tolist(), strict=True), found.counts.tolist(), strict=True))
    assert pairs == {(1, 2): 2.5, (2, 1): 1.0, (2, 3): 1.0}


def test_a_longer_text_is_counted_in_slices_from_all_over_it() -> None:
    ids = np.repeat(np.arange(50), 200)  # token n stands in one place only
    found = count_bigrams([(ids, 1.0)], 50, most=2000)
    assert found.counts.sum() == pytest.approx(2000, rel=0.1)
    assert set(found.left.tolist()) == set(range(50))
    assert count_bigrams([(ids, 1.0)], 50).counts.sum() == len(ids) - 1


def test_the_factors_are_the_best_of_their_rank_in_the_weighted_matrix() -> None:
    """Against a whole singular value decomposition of the matrix written out."""
    ids, _ = chain(0)
    bigrams = count_bigrams([(ids, 1.0)], VOCABULARY)
    rank, smoothing = 5, 50.0
    dense = np.zeros((VOCABULARY, VOCABULARY))
    dense[bigrams.left, bigrams.right] = bigrams.counts
    p_left, p_right = dense.sum(1) / dense.sum(), dense.sum(0) / dense.sum()
    matrix = np.log1p(dense / (smoothing * p_right))
    matrix -= (matrix * p_right).sum(1, keepdims=True)
    weighted = matrix * np.sqrt(p_left)[:, None] * np.sqrt(p_right)
    inner, strengths, right = np.linalg.svd(weighted)
    best = (inner[:, :rank] * strengths[:rank]) @ right[:rank]
    embedding, head, log_p = factors(bigrams, rank, smoothing, seed=3)
    made = embedding @ head.T * np.sqrt(p_left)[:, None] * np.sqrt(p_right)
    assert np.abs(made - best).max() < 1e-3 * np.abs(best).max() + 1e-5
    assert np.allclose(log_p, np.log(p_right), atol=1e-5)
    unweighted = np.linalg.svd(matrix)
    other = (
        (unweighted[0][:, :rank] * unweighted[1][:rank])
        @ unweighted[2][:rank]
        * np.sqrt(p_left)[:, None]
        * np.sqrt(p_right)
    )
    assert np.abs(other - best).max() > 1e-2 * np.abs(best).max()  # the check sees missing weights


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_begins_near_the_entropy_of_the_text(seed: int) -> None:
    ids, entropy = chain(seed)
    unigram = np.bincount(ids, minlength=VOCABULARY) / len(ids)
    unigram_entropy = float(-(unigram * np.log(np.maximum(unigram, 1e-12))).sum())
    assert entropy < unigram_entropy - 0.7
    network = Decoder(CONFIG).initialise(seed)
    assert loss_on(network, ids) == pytest.approx(math.log(VOCABULARY), abs=0.05)
    told = start_from_bigrams(network, count_bigrams([(ids, 1.0)], VOCABULARY), smoothing=20.0, seed=seed)
    found = loss_on(network, ids)
    assert found < entropy + 0.25 * (unigram_entropy - entropy)
    assert told == pytest.approx(found, abs=0.15)
    assert network.embedding.weight.detach().pow(2).mean(1).sqrt().numpy() == pytest.approx(0.8, abs=1e-3)
    shuffled = np.random.default_rng(seed).permutation(
        ids
    )  # the same tokens, no order: nothing to begin with but log p(y)
    start_from_bigrams(network, count_bigrams([(shuffled, 1.0)], VOCABULARY), smoothing=20.0, seed=seed)
    assert loss_on(network, ids) > unigram_entropy - 0.1


def test_tokens_that_never_occur_are_no_trouble() -> None:
    network = Decoder(CONFIG).initialise(1)
    told = start_from_bigrams(
        network, count_bigrams([(np.array([1, 2, 1, 2, 1]), 1.0)], VOCABULARY), smoothing=1.0, seed=1
    )
    assert math.isfinite(told)
    for name, weight in network.named_parameters():
        assert bool(torch.isfinite(weight).all()), name


def test_a_vocabulary_smaller_than_the_width_fits() -> None:
    ids = np.tile(np.arange(6), 400)
    network = Decoder(dataclasses.replace(CONFIG, vocabulary_size=6)).initialise(1)
    before = loss_on(network, ids)
    start_from_bigrams(network, count_bigrams([(ids, 1.0)], 6), smoothing=1.0, seed=1)
    assert loss_on(network, ids) < before - 1.0


@pytest.mark.parametrize(
    ("field", "value"),
    [("tied_embeddings", True), ("initialisation", "normal"), ("final_norm", False), ("norm_place", "post")],
)
def test_a_shape_that_is_no_bigram_model_is_refused(field: str, value: object) -> None:
    network = Decoder(dataclasses.replace(CONFIG, **{field: value})).initialise(1)
    bigrams = Bigrams(VOCABULARY, np.array([1]), np.array([2]), np.array([3.0]))
    with pytest.raises(ConfigError, match="start from bigrams"):
        start_from_bigrams(network, bigrams, smoothing=1.0, seed=1)


def test_the_expected_loss_is_that_of_the_counted_pairs() -> None:
    network = Decoder(CONFIG).initialise(1)
    bigrams = Bigrams(VOCABULARY, np.array([1]), np.array([2]), np.array([3.0]))
    with torch.no_grad():
        logits = network.logits(network.final_norm(network.embedding(torch.tensor([1]))))
    assert expected_loss(network, bigrams, 1) == pytest.approx(-float(torch.log_softmax(logits, -1)[0, 2]), abs=1e-5)

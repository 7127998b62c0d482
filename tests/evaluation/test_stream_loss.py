"""Loss of a stream: every token once whatever the rows, and the mean of sums rather than the mean of means."""

from __future__ import annotations

import math

import numpy as np
import pytest

from duihua.evaluation import stream_loss as module
from duihua.evaluation.stream_loss import StreamLoss, stream_loss
from duihua.models.recurrent import RecurrentLM
from duihua.models.recurrent_config import RecurrentConfig


@pytest.fixture
def network() -> RecurrentLM:
    shape = RecurrentConfig(vocabulary_size=9, end_id=1, cell="lstm", width=5, layers=1, output_dropout=0.5)
    return RecurrentLM(shape).initialise(0)


def test_one_row_is_the_sum_of_all_log_probabilities(network: RecurrentLM, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.random.default_rng(0).integers(9, size=53)
    monkeypatch.setattr(module, "WINDOW", 8)
    found = stream_loss(network, ids)
    assert found.tokens == 53
    assert found.nats == pytest.approx(-float(network.log_probabilities([1, *ids]).sum()), rel=1e-6)
    assert network.training  # left as it was, and measured without dropout


def test_rows_count_every_token_once_and_begin_without_memory(network: RecurrentLM) -> None:
    ids = np.random.default_rng(0).integers(9, size=53)
    stream = [1, *ids.tolist()]
    pieces = [stream[start : start + 15] for start in range(0, 53, 14)]  # 4 rows of 14, the last of 11
    expected = sum(-float(network.log_probabilities(piece).sum()) for piece in pieces)
    found = stream_loss(network, ids, rows=4)
    assert found.tokens == sum(len(piece) - 1 for piece in pieces) == 53
    assert found.nats == pytest.approx(expected, rel=1e-6)
    assert found.nats != pytest.approx(stream_loss(network, ids).nats, rel=1e-9)


def test_perplexity_weights_tokens_and_not_batches() -> None:
    parts = [StreamLoss(40.0, 20), StreamLoss(6.0, 1)]
    whole = StreamLoss(sum(part.nats for part in parts), sum(part.tokens for part in parts))
    assert whole.perplexity == pytest.approx(8.94, abs=0.005)
    assert math.exp(sum(part.mean for part in parts) / 2) == pytest.approx(54.6, abs=0.05)  # the wrong way

"""Copy-memory: what a batch holds, that chance is chance, and that the LSTM remembers what the RNN forgets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from duihua.models.recurrent import RecurrentLM
from duihua.models.recurrent_config import RecurrentConfig
from duihua.stages.memory_task import MemoryBatches, MemoryTask, recall_accuracy, recall_logits, train_memory


def test_a_batch_has_the_symbol_then_blanks_then_the_sign() -> None:
    task = MemoryTask(symbols=3, lag=4, spread=2)
    batch = task.batch(np.random.default_rng(0), 50)
    ids, places = batch["token_ids"], batch["places"]
    assert ids.shape == (50, task.longest)
    assert set(places.tolist()) == {5, 6, 7}  # at least 4 blanks between
    for row, place, answer in zip(ids.tolist(), places.tolist(), batch["answers"].tolist(), strict=True):
        assert row == [answer, *[3] * (place - 1), 4, *[3] * (task.longest - 1 - place)]


def test_batches_depend_on_seed_and_step_alone() -> None:
    task = MemoryTask(lag=3, spread=0)
    first, again, other = MemoryBatches(task, 8, 1), MemoryBatches(task, 8, 1), MemoryBatches(task, 8, 2)
    second = [first.next(), first.next()][1]
    again.load_state_dict({"step": 1})
    assert torch.equal(again.next()[0]["token_ids"], second[0]["token_ids"])
    assert not torch.equal([other.next(), other.next()][1][0]["token_ids"], second[0]["token_ids"])


def test_an_untrained_network_is_at_chance_and_the_answer_cannot_be_seen_at_the_recall() -> None:
    task = MemoryTask()
    shape = RecurrentConfig(vocabulary_size=task.vocabulary_size, cell="rnn", width=16, layers=1, tied_embeddings=False)
    network = RecurrentLM(shape).initialise(0)
    assert recall_accuracy(network, task) < 0.25
    batch = task.batch(np.random.default_rng(0), 4)
    blind = {**batch, "token_ids": batch["token_ids"].clone()}
    blind["token_ids"][:, 0] = task.symbols  # the symbol taken away
    assert torch.allclose(*(recall_logits(network, each).sort(dim=1).values for each in (batch, blind)), atol=1e-4)


def test_a_short_lag_is_learnt_by_the_rnn_too(tmp_path: Path) -> None:
    """The control: the task, the loss and the training are right, so that what fails at 50 is the memory."""
    _, result = train_memory("rnn", tmp_path, task=MemoryTask(lag=2, spread=1), steps=120, width=32, learning_rate=5e-3)
    assert result.accuracy > 0.95


@pytest.mark.slow
def test_the_lstm_recalls_after_50_blanks_and_the_rnn_does_not(tmp_path: Path) -> None:
    _, lstm = train_memory("lstm", tmp_path / "lstm", seed=1)
    _, rnn = train_memory("rnn", tmp_path / "rnn", seed=1)
    assert lstm.accuracy >= 0.99
    assert rnn.accuracy <= 0.60

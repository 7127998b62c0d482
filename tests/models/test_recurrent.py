"""The recurrent language model: parameters by formula, tied weights, states, the dropouts, log-probabilities; its bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from duihua.errors import BundleError, ConfigError
from duihua.models.model_card import ModelCard
from duihua.models.recurrent import RecurrentLM, locked_dropout
from duihua.models.recurrent_bundle import is_recurrent_bundle, load_recurrent, save_recurrent
from duihua.models.recurrent_config import RecurrentConfig, width_of
from duihua.nn.recurrent_kinds import CellKind
from duihua.text.characters import CharacterVocabulary
from duihua.text.words import WordVocabulary

CELLS: list[CellKind] = ["rnn", "lstm", "gru"]


def model(cell: CellKind = "lstm", **changes: Any) -> RecurrentLM:
    shape = RecurrentConfig(vocabulary_size=11, end_id=1, cell=cell, width=6, layers=2)
    return RecurrentLM(replace(shape, **changes)).initialise(0)


def test_parameters_are_as_the_formula_says() -> None:
    for cell, tied, hidden in product(CELLS, (True, False), (0, 9)):
        network = model(cell, tied_embeddings=tied, hidden_width=hidden)
        assert sum(weight.numel() for weight in network.parameters()) == network.config.parameters
    # by hand: 10,000 x 128 and one LSTM layer of 4 x 128 x (128 + 128 + 2)
    assert RecurrentConfig(vocabulary_size=10_000, width=128, layers=1).parameters == 1_280_000 + 132_096


def test_equal_parameters_are_found_by_width() -> None:
    shape = RecurrentConfig(vocabulary_size=10_000, layers=1)
    for cell in CELLS:
        config = replace(shape, cell=cell)
        width = width_of(1_412_096, config)
        distance = [abs(replace(config, width=w).parameters - 1_412_096) for w in (width - 1, width, width + 1)]
        assert distance[1] == min(distance)
    assert width_of(1_412_096, shape) == 128


def test_the_tied_head_is_the_embedding_and_learns_with_it() -> None:
    network = model()
    assert network.head.weight is network.embedding.weight
    free = model(tied_embeddings=False)
    assert free.head.weight is not free.embedding.weight
    hidden, _ = network(torch.tensor([[1, 2]]))
    total, _ = network.next_token_losses(hidden, torch.tensor([[2, 3]]), torch.ones(1, 2))
    total.backward()  # type: ignore[no-untyped-call]
    assert network.embedding.weight.grad is not None
    assert (
        float(network.embedding.weight.grad[7].abs().sum()) > 0
    )  # a token that was not read is an output all the same


def test_losses_and_log_probabilities_are_those_of_the_plain_softmax() -> None:
    network = model(layers=1).eval()
    ids = [1, 4, 2, 2, 9, 10, 3]
    hidden, _ = network(torch.tensor([ids[:-1]]))
    plain = nn.functional.cross_entropy(network.logits(hidden)[0], torch.tensor(ids[1:]), reduction="none")
    total, each = network.next_token_losses(hidden, torch.tensor([ids[1:]]), torch.ones(1, 6))
    torch.testing.assert_close(each[0], plain.detach())
    assert float(total.detach()) == pytest.approx(float(plain.sum().detach()), rel=1e-6)
    np.testing.assert_allclose(network.log_probabilities(ids), -plain.detach().numpy(), atol=1e-6)
    assert network.log_probabilities([1]).shape == (0,)


def test_a_long_text_is_read_in_pieces_as_if_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    network, ids = model(), [1, *np.random.default_rng(0).integers(11, size=40).tolist()]
    whole = network.log_probabilities(ids)
    monkeypatch.setattr("duihua.models.recurrent.READ_AT_ONCE", 7)
    np.testing.assert_allclose(network.log_probabilities(ids), whole, atol=1e-6)
    assert network.training  # left as it was


@pytest.mark.parametrize("cell", CELLS)
def test_fused_and_written_out_agree_and_so_do_gates(cell: CellKind) -> None:
    network, ids = model(cell).eval(), torch.randint(11, (2, 9))
    torch.testing.assert_close(network(ids)[0], network(ids, fused=False)[0])
    gates = network.gates(ids)
    assert len(gates) == 2
    assert all(gate.shape == (2, 9, 6) for layer in gates for gate in layer.values())
    if cell == "lstm":
        torch.testing.assert_close(gates[1]["output"] * gates[1]["cell"].tanh(), network(ids)[0])


def test_locked_dropout_drops_the_same_features_at_every_step() -> None:
    torch.manual_seed(0)
    x = torch.ones(50, 7, 20)
    y = locked_dropout(x, 0.4)
    assert torch.equal(y, y[:, :1].expand_as(y))  # one mask a row
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    assert float((y == 0).float().mean()) == pytest.approx(0.4, abs=0.05)
    assert not torch.equal(y[0], y[1])
    usual = nn.functional.dropout(x, 0.4)  # the control: the usual dropout draws anew at every step
    assert not torch.equal(usual, usual[:, :1].expand_as(usual))


def test_embedding_dropout_drops_a_word_wherever_it_stands() -> None:
    torch.manual_seed(0)
    network = model(embedding_dropout=0.5).train()
    x = network._embed(torch.tensor([[3, 4, 5, 6, 3, 4, 5, 6]]))[0]
    assert torch.equal(x[:4], x[4:])
    dropped = [bool((row == 0).all()) for row in x[:4]]
    assert any(dropped)
    assert not all(dropped)
    kept = dropped.index(False)
    torch.testing.assert_close(x[kept], 2 * network.embedding.weight[3 + kept])


def test_weight_dropout_changes_the_recurrence_in_training_only_and_reaches_the_gradient() -> None:
    network, ids = model(weight_dropout=0.5, layers=1), torch.randint(11, (2, 9))
    torch.manual_seed(0)
    trained = network.train()(ids)[0]
    assert not torch.allclose(trained, network.eval()(ids)[0])
    torch.testing.assert_close(network(ids)[0], network(ids)[0])
    network.train()
    network(ids)[0].sum().backward()
    gradient = next(weight.grad for name, weight in network.named_parameters() if name.endswith("recurrent_weight"))
    assert gradient is not None
    assert 0.3 < float((gradient == 0).float().mean()) < 0.7


def test_config_refuses_what_cannot_be() -> None:
    for field, value in (("width", 0), ("weight_dropout", 1.0), ("cell", "gated"), ("hidden_width", -1)):
        with pytest.raises(ConfigError, match=str(field)):
            RecurrentConfig(**{field: value})
    with pytest.raises(ConfigError, match="no id of a vocabulary of 5"):
        RecurrentConfig(vocabulary_size=5, end_id=5)


# -- the bundle --------------------------------------------------------------------------------------------------------------

WORDS = WordVocabulary(["the", "cat", "sat", "on", "a", "mat", "N", "and", "dog"])
CARD = ModelCard(title="tiny", stage="recurrent", terms=[{"name": "own", "licence": "CC0-1.0"}])


@pytest.mark.parametrize("tied", [True, False])
def test_a_bundle_gives_the_same_network_back(tmp_path: Path, tied: bool) -> None:
    network = model(tied_embeddings=tied, hidden_width=8).eval()
    save_recurrent(tmp_path / "m", network, WORDS, CARD)
    found = load_recurrent(tmp_path / "m")
    assert found.config == network.config
    assert found.vocabulary.encode("the dog") == WORDS.encode("the dog")
    assert found.terms[0]["name"] == "own"
    ids = [1, 5, 3, 2]
    np.testing.assert_array_equal(found.network.log_probabilities(ids), network.log_probabilities(ids))
    assert (found.network.head.weight is found.network.embedding.weight) == tied
    assert is_recurrent_bundle(tmp_path / "m")
    assert not is_recurrent_bundle(tmp_path)


def test_a_bundle_keeps_whichever_vocabulary_it_was_trained_with(tmp_path: Path) -> None:
    characters = CharacterVocabulary.train(["abcdefghi"])
    network = model(vocabulary_size=characters.vocabulary_size)
    save_recurrent(tmp_path, network, characters, CARD)
    assert isinstance(load_recurrent(tmp_path).vocabulary, CharacterVocabulary)


def test_broken_bundles_are_named(tmp_path: Path) -> None:
    save_recurrent(tmp_path, model(), WORDS, CARD)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"width": 7}, "does not fit config.json: embedding.weight"),
        ({"vocabulary_size": 12}, "the vocabulary has 11 ids, the embedding 12 rows"),
        ({"model_type": "qwen3"}, "is not a recurrent language model"),
        ({"cell": "gated"}, "config.json"),
        ({"duihua": {"format": 9}}, "another format"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(BundleError, match=message):
            load_recurrent(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(BundleError, match="cannot be read"):
        load_recurrent(tmp_path)
